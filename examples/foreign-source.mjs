// Dials a server from an address that is not ours: node foreign-source.mjs 10.0.3.7 10.0.4.2 80
// Needs CAP_NET_RAW, and a way back: the server's packets for that address must be routed to this host and diverted
// to the socket (limpid rules install --intercept tproxy does that).
import { dialTcp } from 'limpid'

const [source, address, port] = process.argv.slice(2)
const socket = await dialTcp({ address, port: Number(port) }, { source: { address: source } })
socket.toNetSocket().end('GET / HTTP/1.0\r\n\r\n').pipe(process.stdout)
