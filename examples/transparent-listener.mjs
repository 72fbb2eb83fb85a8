// Accepts connections that were dialled to anybody, on any port, and tells who dialled what.
// Needs CAP_NET_RAW, and rules that bring the connections here: limpid rules install --intercept tproxy
import { listenTcp } from 'limpid'

const listener = await listenTcp({ address: '127.0.0.1', port: 50_080, transparent: true })
for await (const socket of listener) {
  const { clientAddr, originalDst } = socket
  socket.toNetSocket().end(`${clientAddr.address} dialled ${originalDst.address} port ${originalDst.port}\n`)
}
