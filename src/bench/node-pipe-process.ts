// The proxy that anybody would write first: node:net, one socket piped into the other, both ways. Clients dial X; the server
// sees X's address, since node:net cannot bind to another.
import { connect, createServer } from 'node:net'
import { ADDRESSES } from '../lab/topology.ts'
import { TCP_PORTS } from './ports.ts'

const { xy: PROXY, z: SERVER } = ADDRESSES[4]
const BACKLOG = 4096

for (const port of TCP_PORTS) {
  const server = createServer({ noDelay: true }, (client) => {
    const upstream = connect({ host: SERVER, port, noDelay: true })
    client.on('error', () => upstream.destroy())
    upstream.on('error', () => client.destroy())
    client.on('close', () => upstream.destroy())
    upstream.on('close', () => client.destroySoon())
    client.pipe(upstream).pipe(client)
  })
  server.listen({ host: PROXY, port, backlog: BACKLOG })
}
