// A person with Chromium. Arguments: Chromium's path, the page's link (with the token in its fragment), a topic filter,
// and a directory for its profile and the pictures. Prints one JSON object about what was to be seen; ends with 1 and the
// reason when something did not come.
import { join } from 'node:path'
import { chromium } from 'playwright-core'

const [executablePath, link, filter, dir] = process.argv.slice(2)
const timeout = 45_000
const context = await chromium.launchPersistentContext(join(dir, 'profile'), {
  executablePath,
  headless: true,
  viewport: { width: 1280, height: 900 },
  reducedMotion: 'reduce', // a picture taken on the way would show nothing certain
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})
const seen = { complaints: [], foreign: [] }
try {
  const page = context.pages()[0] ?? await context.newPage()
  page.setDefaultTimeout(timeout)
  page.on('console', (m) => { if (m.type() === 'error' || m.type() === 'warning') seen.complaints.push(m.text()) })
  page.on('pageerror', (e) => seen.complaints.push(String(e)))
  page.on('request', (r) => { if (new URL(r.url()).origin !== new URL(link).origin) seen.foreign.push(r.url()) })

  await page.goto(link)
  const token = new URLSearchParams(new URL(link).hash.slice(1)).get('token')
  await page.waitForFunction(() => document.querySelector('#state').dataset.state !== 'idle')
  seen.address = page.url()
  if (await page.inputValue('#filter') !== filter) {
    await page.fill('#filter', filter)
    await page.click('#connect button[type=submit]')
  }
  await page.waitForSelector('#state[data-state=live]')
  await page.waitForSelector('#messages li')
  await page.waitForFunction(() => /\d on the map/.test(document.querySelector('#map-count').textContent))
  // A marker is drawn in a colour: the map's own lines are shades of one.
  await page.waitForFunction(() => {
    const canvas = document.querySelector('#map')
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
    let vivid = 0
    for (let i = 0; i < data.length; i += 4) {
      const [r, g, b] = [data[i], data[i + 1], data[i + 2]]
      if (data[i + 3] > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 80) vivid++
    }
    return vivid > 40
  })
  await page.screenshot({ path: join(dir, 'wide.png') })
  seen.granted = await page.textContent('#granted')
  seen.onTheMap = await page.textContent('#map-count')

  // Chromium's own stream reader and WebSocket, from within the page and under its policy.
  seen.stream = await page.evaluate(async ({ token, filter }) => {
    const leave = new AbortController()
    const answer = await fetch(`/v1/stream?filter=${encodeURIComponent(filter)}`, {
      headers: { Authorization: `Bearer ${token}` }, signal: leave.signal,
    })
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    while (!/event: ready\n/.test(text) || !/event: live\n/.test(text) || !/^data: \{"type":"message".*\n\n/m.test(text)) {
      const { value, done } = await reader.read()
      if (done) break
      text += value
    }
    leave.abort()
    return { status: answer.status, type: answer.headers.get('Content-Type'), text: text.slice(0, 4000) }
  }, { token, filter })
  seen.socket = await page.evaluate(({ token, filter }) => new Promise((resolve, reject) => {
    const ws = new WebSocket(`${location.origin.replace('http', 'ws')}/v1/ws`, ['flyscreen.v1'])
    const types = []
    ws.onopen = () => {
      ws.send(JSON.stringify({ type: 'connect', token }))
      ws.send(JSON.stringify({ type: 'subscribe', id: 1, filters: [filter] }))
    }
    ws.onmessage = (e) => {
      types.push(JSON.parse(e.data).type)
      if (types.includes('live') && types.includes('message')) {
        ws.send(JSON.stringify({ type: 'disconnect' }))
        ws.onclose = (c) => resolve({ protocol: ws.protocol, types: [...new Set(types)], code: c.code })
      }
    }
    ws.onclose = (c) => reject(new Error(`closed with ${c.code} ${c.reason}`))
  }), { token, filter })

  // A person publishes, and sees what became of it.
  await page.fill('#publish-topic', filter.replace('#', 'rex/commands/sound'))
  await page.fill('#publish-payload', '{"sound":"beep"}')
  await page.click('#publish-button')
  await page.waitForFunction(() => { const t = document.querySelector('#publish-result').textContent; return t && t !== 'Sending…' })
  seen.published = await page.textContent('#publish-result')

  seen.topics = await page.locator('#latest tr > :first-child').allTextContents()
  await page.setViewportSize({ width: 390, height: 844 })
  seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  // Two frames: one in which the page notices, one in which it has drawn.
  await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))
  await page.screenshot({ path: join(dir, 'narrow.png'), fullPage: true })
  process.stdout.write(JSON.stringify(seen) + '\n')
} catch (e) {
  process.stdout.write(JSON.stringify(seen) + '\n')
  process.stderr.write(`${e}\n`)
  process.exitCode = 1
} finally {
  await context.close()
}
