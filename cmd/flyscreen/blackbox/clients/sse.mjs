// Follows an event stream with npm eventsource. Arguments: the URL. Environment: TOKEN. Each event is a line on stdout:
// {"event": type, "id": lastEventId, "data": data}; a refusal is {"event": "refused", "status": n}.
import { EventSource } from 'eventsource'

const [url] = process.argv.slice(2)
const headers = process.env.TOKEN ? { Authorization: `Bearer ${process.env.TOKEN}` } : {}
const print = (o) => process.stdout.write(JSON.stringify(o) + '\n')

const source = new EventSource(url, {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
})
for (const type of ['message', 'ready', 'live', 'gap', 'upstream', 'token_expiring', 'end']) {
  source.addEventListener(type, (e) => {
    print({ event: type, id: e.lastEventId, data: e.data })
    if (type === 'end') source.close() // the gateway said it all; what to do next is the caller's business
  })
}
source.addEventListener('error', (e) => {
  if (e.code) print({ event: 'refused', status: e.code })
})
