import { readdirSync } from 'node:fs'
import { Server, Socket } from 'node:net'
import { createProxy } from '../apps/create-proxy.ts'
import { DEFAULT_LIMITS, DEFAULT_RULES, DEFAULT_TIMEOUTS, DEFAULT_WORKERS, MATCH_ANY } from '../config/defaults.ts'
import { NO_POLICY } from '../config/policy.ts'
import type { Config, Limits, ListenerConfig, Timeouts } from '../config/types.ts'
import { until } from '../lab/traffic.fixture.ts'
import type { Endpoint } from '../net/address.ts'
import type { TransparentProxy } from './proxy.ts'
import type { FlowRecord } from './record.ts'

/** A config with one plain forwarder on loopback, port 0, towards `to`. */
export function forwarderConfig(
  to: Endpoint,
  { timeouts, ...listener }: Partial<Omit<ListenerConfig, 'timeouts'>> & { readonly timeouts?: Partial<Timeouts> } = {},
  limits: Partial<Limits> = {},
): Config {
  return {
    listeners: [
      {
        name: 'test',
        intercept: 'none',
        paths: [],
        protocols: ['tcp'],
        listen: [{ address: '127.0.0.1', port: 0 }],
        families: [4],
        match: MATCH_ANY,
        exclude: MATCH_ANY,
        addressedHere: false,
        source: 'proxy',
        to: { host: to.address, port: to.port },
        onDown: 'open',
        fastOpen: false,
        acceptProxyProtocol: undefined,
        timeouts: { ...DEFAULT_TIMEOUTS, ...timeouts },
        dns: undefined,
        ...listener,
      },
    ],
    forwards: [],
    bypass: [],
    workers: DEFAULT_WORKERS,
    policy: NO_POLICY,
    ioUring: true,
    limits: { ...DEFAULT_LIMITS, ...limits },
    rules: DEFAULT_RULES,
  }
}

/** A forwarder under test with everything it told. */
export interface Forwarder extends AsyncDisposable {
  readonly proxy: TransparentProxy
  readonly address: Endpoint
  readonly records: FlowRecord[]
  /** The next record, or the one that is there already; in order. */
  nextRecord(): Promise<FlowRecord>
}

export async function startForwarder(...config: Parameters<typeof forwarderConfig>): Promise<Forwarder> {
  const proxy = createProxy(forwarderConfig(...config))
  const records: FlowRecord[] = []
  let taken = 0
  proxy.on('flow', (record) => records.push(record))
  const [address] = await proxy.listen()
  return {
    proxy,
    address: address!,
    records,
    nextRecord: async () => {
      const index = taken++
      await until(() => records.length > index, 'a flow record')
      return records[index]!
    },
    [Symbol.asyncDispose]: () => proxy.close(),
  }
}

/** A server on loopback which hands each connection to `serve`. */
export async function startServer(
  serve: (socket: Socket) => void,
  port = 0,
): Promise<{ address: Endpoint; connections: Set<Socket> } & AsyncDisposable> {
  const connections = new Set<Socket>()
  const server = new Server({ allowHalfOpen: true }, (socket) => {
    connections.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => connections.delete(socket))
    serve(socket)
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const address = { address: '127.0.0.1', port: (server.address() as { port: number }).port }
  return {
    address,
    connections,
    [Symbol.asyncDispose]: async () => {
      for (const socket of connections) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A client connection that allows half-open; its errors are kept, not thrown. */
export function connectTo(endpoint: Endpoint): Socket & { failure: NodeJS.ErrnoException | undefined } {
  const socket = new Socket({ allowHalfOpen: true }) as Socket & { failure: NodeJS.ErrnoException | undefined }
  socket.failure = undefined
  socket.on('error', (error) => {
    socket.failure = error
  })
  return socket.connect({ port: endpoint.port, host: endpoint.address }) as typeof socket
}

/** Everything until FIN; rejects on an error (a reset). */
export async function readAll(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

export function whenClosed(socket: Socket): Promise<void> {
  return socket.closed ? Promise.resolve() : new Promise((resolve) => socket.once('close', () => resolve()))
}

/** Descriptors of this process that are sockets, pipes or epoll sets (what a flow could leak). */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').length
}
