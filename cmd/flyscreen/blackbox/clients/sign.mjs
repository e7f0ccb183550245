// Signs tokens with jose. One request a line on stdin: {"claims": {...}, "secret": "...", "alg": "HS256"}; one token a
// line on stdout. Claims are signed as they come: nothing is added.
import { createInterface } from 'node:readline'
import { SignJWT } from 'jose'

for await (const line of createInterface({ input: process.stdin })) {
  const { claims, secret, alg } = JSON.parse(line)
  const token = await new SignJWT(claims).setProtectedHeader({ alg, typ: 'JWT' }).sign(new TextEncoder().encode(secret))
  process.stdout.write(token + '\n')
}
