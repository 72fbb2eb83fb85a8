// Sends a datagram from an address and port that are not ours: node foreign-datagram.mjs 1.2.3.4 5300 198.41.0.4 53
// Needs CAP_NET_RAW.
import { bindUdp } from 'limpid'

const [from, fromPort, to, toPort] = process.argv.slice(2)
const socket = await bindUdp({ address: from, port: Number(fromPort), transparent: true })
socket.send('hello from somebody else', { address: to, port: Number(toPort) })
socket.close()
