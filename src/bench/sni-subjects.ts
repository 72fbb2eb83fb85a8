import { ADDRESSES, X_TO_Y } from '../lab/topology.ts'
import { noHaproxy, raiseHaproxy } from './haproxy.ts'
import { noNginx, raiseNginx } from './nginx.ts'
import { needsSwitch, startLimpid, writeRunFile } from './on-topology.ts'
import { TLS_PORT } from './ports.ts'
import { ROUTES, sniKind } from './sni-path.ts'
import type { SubjectKind } from './suite.ts'

const { z: SERVER } = ADDRESSES[4]
const INTERCEPTION = [
  ...['--intercept', 'tproxy', '--from', X_TO_Y, '--family', '4', '--ports', String(TLS_PORT)],
  ...['--source', 'client', '--listen', '127.0.0.1:50080'],
]
const serverOf = (port: number): string => `${SERVER}:${port}`

const LIMPID = `listeners:
  - name: tls
    intercept: tproxy
    protocols: tcp
    interfaces: ${X_TO_Y}
    family: 4
    listen: ["127.0.0.1:50080"]
    ports: ${TLS_PORT}
    source: client
policy:
  rules:
${ROUTES.map(([name, port]) => `    - { name: ${name}, hosts: ${name}, then: forward, to: "${serverOf(port)}" }\n`).join('')}    - { name: others, then: reject }
`

/** As HAProxy's manual has it: waits for a whole hello, then takes the backend of its name. */
const HAPROXY = {
  frontend: [
    'tcp-request inspect-delay 5s',
    'tcp-request content accept if { req.ssl_hello_type 1 }',
    'tcp-request content reject',
    ...ROUTES.map(([name, port]) => `use_backend named-${port} if { req.ssl_sni -i ${name} }`),
  ],
  backends: ROUTES.map(
    ([, port]) => `backend named-${port}\n  source 0.0.0.0 usesrc clientip\n  server named ${serverOf(port)}\n`,
  ),
}

const NGINX = {
  map: `  map $ssl_preread_server_name $named {
${ROUTES.map(([name, port]) => `    ${name} ${serverOf(port)};\n`).join('')}  }
`,
  pass: '$named',
}

/** Flows of one port, routed to the server of the name in their ClientHello. */
export const SNI_SUBJECTS: readonly SubjectKind[] = [
  {
    ...sniKind('limpid', (topology, env) => {
      const file = writeRunFile('sni.yaml', LIMPID)
      return startLimpid(topology, ['--config', file], { name: 'limpid', dialled: SERVER }, env)
    }),
    missing: needsSwitch('--shadow'), // which came with rules
  },
  {
    ...sniKind('haproxy', (topology) => {
      const job = { name: 'haproxy-sni', threads: 1, options: ['splice-auto'], interception: INTERCEPTION, ...HAPROXY }
      return raiseHaproxy(topology, job).then((subject) => ({ ...subject, name: 'haproxy' }))
    }),
    missing: noHaproxy,
  },
  { ...sniKind('nginx', (topology) => raiseNginx(topology, 'tcp', [TLS_PORT], NGINX)), missing: noNginx },
]
