// A WebSocket with npm ws. Arguments: the URL and the subprotocols to offer. Environment: TOKEN for an Authorization
// header, ORIGIN for an Origin. Each line on stdin is sent as a text frame; a line "binary:<base64>" as a binary one,
// "text:<base64>" as a text frame of these bytes, valid or not. Prints "open <subprotocol>", "frame <text>",
// "closed <code> <reason>", "refused <status> <body>".
import { createInterface } from 'node:readline'
import WebSocket from 'ws'

const [url, ...protocols] = process.argv.slice(2)
const print = (line) => process.stdout.write(line + '\n')
const headers = process.env.TOKEN ? { Authorization: `Bearer ${process.env.TOKEN}` } : {}
const ws = new WebSocket(url, protocols, { headers, ...(process.env.ORIGIN && { origin: process.env.ORIGIN }) })

ws.on('unexpected-response', (_, res) => {
  const chunks = []
  res.on('data', (c) => chunks.push(c))
  res.on('end', () => {
    print(`refused ${res.statusCode} ${Buffer.concat(chunks).toString().trimEnd()}`)
    process.exit(0)
  })
})
ws.on('error', (e) => process.stderr.write(`${e}\n`))
ws.on('message', (data, isBinary) => print(`${isBinary ? 'binary' : 'frame'} ${data}`))
ws.on('close', (code, reason) => {
  print(`closed ${code} ${reason}`)
  process.exit(0)
})
ws.on('open', async () => {
  print(`open ${ws.protocol}`)
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.startsWith('binary:')) ws.send(Buffer.from(line.slice(7), 'base64'), { binary: true })
    else if (line.startsWith('text:')) ws.send(Buffer.from(line.slice(5), 'base64'), { binary: false })
    else ws.send(line)
  }
})
