// A transparent proxy in eight lines for questions with one answer each (DNS, NTP …): the server sees the client's address.
// Needs CAP_NET_RAW and CAP_NET_ADMIN, and rules: limpid rules install --intercept tproxy --protocol udp --source client
import { bindUdp } from 'limpid'

const mark = 0x2000_0000 // by it the rules know what is ours, and bring the answers to our sockets
const clients = await bindUdp({ address: '127.0.0.1', port: 50_080, transparent: true })
for await (const question of clients) ask(question).catch((error) => console.error(`${error}`))

async function ask(question) {
  const { address } = question.clientAddr
  const server = await bindUdp({ address, transparent: true, mark, signal: AbortSignal.timeout(5_000) })
  server.send(question.bytes, question.originalDst)
  for await (const { bytes } of server) clients.reply(question, bytes)
}
