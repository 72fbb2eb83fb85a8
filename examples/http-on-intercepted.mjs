// Node's own HTTP server on intercepted connections: it answers for every site in the world.
// Needs CAP_NET_RAW, and rules: limpid rules install --intercept tproxy --ports 80
import { createServer } from 'node:http'
import { listenTcp } from 'limpid'

const server = createServer((request, response) => response.end(`no ${request.headers.host}${request.url} here\n`))
for await (const socket of await listenTcp({ address: '127.0.0.1', port: 50_080, transparent: true })) {
  server.emit('connection', socket.toNetSocket())
}
