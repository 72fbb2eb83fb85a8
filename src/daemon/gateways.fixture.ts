import type { ChildProcess } from 'node:child_process'
import { connect, type NatsConnection } from '@nats-io/transport-node'
import { Host } from '../lab/host.ts'
import { until } from '../lab/traffic.fixture.ts'
import { enterNetNamespace } from '../sys/namespace.ts'

/** A client behind a gateway, which reaches the servers by one link and NATS by another. */
export interface Gateway {
  readonly client: Host
  readonly gateway: Host
  /** The server, as its clients reach it. */
  readonly server: string
  /** NATS, as the gateway reaches it. */
  readonly nats: string
  /** The link to NATS is taken down, or put up again; flows go on. */
  setLink(state: 'up' | 'down'): Promise<void>
}

/** Servers and NATS on one host, and some gateways with a client each. This thread is on that host, too. */
export class Gateways implements AsyncDisposable {
  readonly core: Host
  readonly gateways: readonly Gateway[]
  #nats: ChildProcess | undefined

  private constructor(core: Host, gateways: readonly Gateway[]) {
    this.core = core
    this.gateways = gateways
  }

  static async raise(count: number): Promise<Gateways> {
    const core = await Host.create('core')
    const gateways: Gateway[] = []
    for (let number = 1; number <= count; number++) gateways.push(await raiseGateway(core, number))
    enterNetNamespace(core.namespaceFd)
    return new Gateways(core, gateways)
  }

  /** A server that keeps what it has in `folder`. */
  async startNats(folder: string): Promise<NatsConnection> {
    const args = ['--jetstream', '--store_dir', folder, '--addr', '0.0.0.0', '--port', '4222']
    this.#nats = this.core.spawn('nats-server', args, { stdio: 'ignore' })
    let connection: NatsConnection | undefined
    await until(async () => {
      connection = await connect({ servers: '127.0.0.1', timeout: 1_000 }).catch(() => undefined)
      return connection !== undefined
    }, 'nats-server')
    return connection!
  }

  async stopNats(): Promise<void> {
    const nats = this.#nats
    if (nats === undefined || nats.exitCode !== null) return
    const ended = new Promise((resolve) => nats.once('exit', resolve))
    nats.kill('SIGTERM')
    await ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopNats()
    for (const { client, gateway } of this.gateways) await Promise.all([client.close(), gateway.close()])
    await this.core.close()
  }
}

async function raiseGateway(core: Host, number: number): Promise<Gateway> {
  const [client, gateway] = await Promise.all([Host.create(`Y${number}`), Host.create(`X${number}`)])
  const batch = (host: Host, lines: readonly string[]) => host.run('ip', ['-batch', '-'], { input: lines.join('\n') })
  const lines = (name: string, address: string) => [`address add ${address}/24 dev ${name}`, `link set ${name} up`]
  await batch(gateway, [
    `link add to-y type veth peer name to-x netns ${client.path}`,
    `link add to-z type veth peer name z-${number} netns ${core.path}`,
    `link add to-nats type veth peer name nats-${number} netns ${core.path}`,
    ...lines('to-y', `10.1.${number}.1`),
    ...lines('to-z', `10.2.${number}.1`),
    ...lines('to-nats', `10.3.${number}.1`),
  ])
  await batch(core, [
    ...lines(`z-${number}`, `10.2.${number}.2`),
    ...lines(`nats-${number}`, `10.3.${number}.2`),
    `route add 10.1.${number}.0/24 via 10.2.${number}.1`,
  ])
  await batch(client, [...lines('to-x', `10.1.${number}.2`), `route add default via 10.1.${number}.1`])
  gateway.setSysctls({ 'net.ipv4.ip_forward': '1' })
  return {
    client,
    gateway,
    server: `10.2.${number}.2`,
    nats: `10.3.${number}.2`,
    setLink: async (state) => void (await gateway.run('ip', ['link', 'set', 'to-nats', state])),
  }
}
