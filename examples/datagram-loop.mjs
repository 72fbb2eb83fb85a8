// Takes datagrams that were sent to anybody on port 5301, and answers from the address that was asked.
// Needs CAP_NET_RAW, and rules that bring them here: limpid rules install --intercept mark --protocol udp --ports 5301
import { bindUdp } from 'limpid'

const socket = await bindUdp({ port: 5301, transparent: true })
for await (const datagram of socket) {
  const { clientAddr, originalDst, bytes } = datagram
  console.log(`${clientAddr.address} sent ${bytes.length} bytes to ${originalDst.address} port ${originalDst.port}`)
  socket.reply(datagram, bytes)
}
