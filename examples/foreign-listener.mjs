// Listens on an address that is not ours, on a port that no rule names (passive FTP's data connections do that):
// the divert rule alone brings packets for it here. node foreign-listener.mjs 10.0.4.2 2121
// Needs CAP_NET_RAW and the divert rule: limpid rules install --intercept tproxy --ports 21
import { listenTcp } from 'limpid'

const [address, port] = process.argv.slice(2)
for await (const socket of await listenTcp({ address, port: Number(port), transparent: true })) {
  socket.toNetSocket().end(`this is not ${address}\n`)
}
