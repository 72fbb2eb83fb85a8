import { mustRun } from '../sys/program.ts'

/** A network interface of this host. */
export interface Link {
  readonly name: string
  /** Bytes. */
  readonly mtu: number
  readonly up: boolean
  readonly bridge: BridgeSwitches | undefined
  /** The bridge that it is a port of. */
  readonly master: string | undefined
}

/** The bridge's own switches, beside the sysctls bridge-nf-call-*. */
export interface BridgeSwitches {
  readonly callIptables: boolean
  readonly callIp6tables: boolean
}

interface LinkJson {
  readonly ifname: string
  readonly mtu: number
  readonly flags: readonly string[]
  readonly master?: string
  readonly linkinfo?: { readonly info_kind?: string; readonly info_data?: Readonly<Record<string, unknown>> }
}

/** All of them, lo too. @throws LimpidError LIMPID_PROGRAM */
export async function readLinks(): Promise<Link[]> {
  const found = JSON.parse(await mustRun('ip', ['-j', '-d', 'link', 'show'])) as LinkJson[]
  return found.map(({ ifname, mtu, flags, master, linkinfo }) => ({
    name: ifname,
    mtu,
    up: flags.includes('UP'),
    bridge:
      linkinfo?.info_kind === 'bridge'
        ? {
            callIptables: linkinfo.info_data?.nf_call_iptables === 1,
            callIp6tables: linkinfo.info_data?.nf_call_ip6tables === 1,
          }
        : undefined,
    master,
  }))
}

/** Whether packets come in on its bridge instead, and routes are the bridge's. */
export function isBridgePort({ master }: Link, links: readonly Link[]): boolean {
  return links.some(({ name, bridge }) => name === master && bridge !== undefined)
}

/** The name as a segment of a sysctl's key in sysctl(8)'s other notation, in which dots are dots. */
export function sysctlKey(path: string, name: string, key: string): string {
  return name.includes('.') ? `${path.replaceAll('.', '/')}/${name}/${key}` : `${path}.${name}.${key}`
}
