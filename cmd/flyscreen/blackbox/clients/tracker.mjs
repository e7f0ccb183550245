// The tracker of a pet-tracking guide, with npm mqtt: QoS 1, a retained status, a last will, and commands that it obeys.
// Arguments: the broker's URL and the pet's name. Prints "online" once its status is at the broker.
import mqtt from 'mqtt'

const [url, pet] = process.argv.slice(2)
const topic = (leaf) => `pets/${pet}/${leaf}`
const client = await mqtt.connectAsync(url, {
  clientId: `tracker-${pet}`,
  keepalive: 5,
  will: { topic: topic('status'), payload: JSON.stringify({ online: false }), qos: 1, retain: true },
})
client.on('message', (t, payload) => {
  const { sound } = JSON.parse(payload.toString())
  client.publish(topic('events'), JSON.stringify({ played: sound, at: t }), { qos: 1 })
})
await client.subscribeAsync(topic('commands/#'), { qos: 1 })
await client.publishAsync(topic('status'), JSON.stringify({ online: true, firmware: '1.4.2' }), { qos: 1, retain: true })
process.stdout.write('online\n')

let step = 0
setInterval(() => {
  step++
  const location = { lat: 52.5145 + step * 1e-4, lng: 13.3501 - step * 1e-4, step, battery: 100 - (step % 100) }
  client.publish(topic('location'), JSON.stringify(location), { qos: 1, retain: true })
}, 100)
