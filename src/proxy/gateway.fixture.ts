import { createProxy } from '../apps/create-proxy.ts'
import { parseConfig } from '../config/parse.ts'
import type { Host } from '../lab/host.ts'
import { X_TO_Y } from '../lab/topology.ts'
import { until } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'
import { enterNetNamespace } from '../sys/namespace.ts'
import type { TransparentProxy } from './proxy.ts'
import type { FlowRecord } from './record.ts'

// Rules as a person would write them, so that these tests are about the proxy alone. Marks are those of DEFAULT_RULES.

const OURS = 'meta mark & 0x30000000 == 0x20000000'
const ADDRESSED = 'tcp dport { 80, 81 }'

/** Answers to our dials with a source that is not ours come back to us by their socket. */
const DIVERT = `
  chain divert {
    type filter hook prerouting priority mangle - 1;
    tcp flags & (syn|ack) != syn socket transparent 1 socket wildcard 0 meta mark set 0x10000000 accept
  }`

/** Our dial with the client's own port would else be found in conntrack as the client's connection. */
const ZONE = `
  chain zone {
    type filter hook output priority raw;
    ${OURS} fib saddr type != local ${ADDRESSED} ct original zone set 19536
  }`

/** All packets to port 80 of others, so that no set of flows is needed; the proxy's own are marked. */
const LOCAL_ROUTED = `
  chain out {
    type route hook output priority mangle;
    meta mark & 0x30000000 != 0 return
    fib daddr type local return
    meta l4proto tcp tcp dport 80 meta mark set 0x30000000
  }`

/** What is on its way from Y, or (\`local\`) made on the proxy host, to ports 80 and 81 of anybody. */
export const RULES = {
  redirect: (to: string) => `table inet hand { ${DIVERT} ${ZONE}
  chain pre {
    type nat hook prerouting priority dstnat;
    iifname "${X_TO_Y}" ${ADDRESSED} redirect to ${to}
  }
}`,
  dnat: (to4: string, to6: string) => `table inet hand { ${DIVERT} ${ZONE}
  chain pre {
    type nat hook prerouting priority dstnat;
    iifname "${X_TO_Y}" ${ADDRESSED} dnat ip to ${to4}
    iifname "${X_TO_Y}" ${ADDRESSED} dnat ip6 to ${to6}
  }
}`,
  mark: `table inet hand { ${DIVERT}
  chain pre {
    type filter hook prerouting priority mangle;
    iifname "${X_TO_Y}" tcp dport 80 meta mark set 0x10000000
  }
}`,
  localRedirect: `table inet hand {
  chain out {
    type nat hook output priority -100;
    meta mark & 0x30000000 != 0 return
    fib daddr type local return
    ${ADDRESSED} redirect to :50080
  }
}`,
  localMark: `table inet hand { ${LOCAL_ROUTED}
}`,
  localTproxy: `table inet hand { ${LOCAL_ROUTED}
  chain pre {
    type filter hook prerouting priority mangle;
    iifname lo meta mark & 0x30000000 == 0x30000000 tcp flags & (syn|ack) == syn goto back
  }
  chain back {
    meta l4proto tcp tproxy ip to 127.0.0.1:50080 accept
    meta l4proto tcp tproxy ip6 to [::1]:50080 accept
  }
}`,
}

const IP_RULES = [
  'rule add pref 193 fwmark 0x30000000/0x30000000 lookup 19536',
  'rule add pref 196 nop',
  'rule add pref 194 iif lo fwmark 0x10000000/0x30000000 goto 196',
  'rule add pref 195 fwmark 0x10000000/0x30000000 lookup 19536',
  'route add local default dev lo table 19536',
]

/** Policy routing of marked packets to this host. Once for each host. */
export async function routeMarked(host: Host): Promise<void> {
  for (const family of ['-4', '-6']) await host.run('ip', [family, '-batch', '-'], { input: IP_RULES.join('\n') })
}

/** A proxy of this process with its sockets on a host of the lab, behind rules. */
export interface Gateway extends AsyncDisposable {
  readonly proxy: TransparentProxy
  readonly listening: readonly Endpoint[]
  readonly records: readonly FlowRecord[]
  /** The next record, or the one that is there already; in order. */
  nextRecord(): Promise<FlowRecord>
}

/** This process stays on the host from now on: a proxy opens its sockets where it happens to be. */
export async function startGateway(host: Host, listener: string, rules: string): Promise<Gateway> {
  enterNetNamespace(host.namespaceFd)
  const proxy = createProxy(parseConfig(`listeners: [${listener}]`, 'test'))
  const records: FlowRecord[] = []
  let taken = 0
  proxy.on('flow', (record) => records.push(record))
  const listening = await proxy.listen()
  await host.run('nft', ['-f', '-'], { input: `${rules}\n` })
  return {
    proxy,
    listening,
    records,
    nextRecord: async () => {
      const index = taken++
      await until(() => records.length > index, 'a flow record')
      return records[index]!
    },
    [Symbol.asyncDispose]: async () => {
      await proxy.close()
      await host.run('nft', ['delete', 'table', 'inet', 'hand'])
    },
  }
}
