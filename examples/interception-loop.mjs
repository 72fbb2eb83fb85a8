// A transparent proxy in eight lines: the client believes that it talks to the server, the server that it talks to the client.
// Needs CAP_NET_RAW, and rules: limpid rules install --intercept tproxy --source client
import { dialTcp, listenTcp, relayTcp } from 'limpid'

for await (const client of await listenTcp({ address: '127.0.0.1', port: 50_080, transparent: true })) {
  dialTcp(client.originalDst, { source: { address: client.clientAddr.address } })
    .then((server) => relayTcp(client, server))
    .then(({ reason, bytesUpstreamToClient }) => console.log(reason, bytesUpstreamToClient))
    .catch((error) => {
      console.error(`${error}`)
      client.reset()
    })
}
