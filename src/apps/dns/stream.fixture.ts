import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type { Endpoint } from '../../net/address.ts'
import type { HandledFlow } from '../../proxy/app.ts'
import { CLIENT, SERVER } from './app.fixture.ts'
import type { DnsApp } from './app.ts'
import { framed, MessageFrames } from './frames.ts'

/** A DNS server by TCP that does what the test says with each message. */
export interface StreamServer extends AsyncDisposable {
  readonly endpoint: Endpoint
  readonly sockets: Socket[]
}

export async function streamServer(onMessage: (message: Buffer, socket: Socket) => void): Promise<StreamServer> {
  const sockets: Socket[] = []
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    const frames = new MessageFrames()
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    socket.on('data', (chunk: Buffer) => {
      frames.push(chunk)
      for (let message = frames.next(); message !== undefined; message = frames.next()) onMessage(message, socket)
    })
  })
  const port = await listening(server)
  return {
    endpoint: { address: '127.0.0.1', port },
    sockets,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** A client's stream that the app serves. */
export interface ServedStream extends AsyncDisposable {
  readonly client: Socket
  /** Resolves when the app is done with it. */
  readonly served: Promise<void>
  /** Where the app dialled. */
  readonly dialled: (Endpoint | undefined)[]
  send(...messages: Uint8Array[]): void
  /** The next message of the app; undefined: it ended or reset the stream. */
  next(): Promise<Buffer | undefined>
}

/** `places`: where a dial really goes, by the port that the app named, or by '' for the server that the client dialled. */
export async function serve(
  app: DnsApp,
  places: Readonly<Record<string, Endpoint | undefined>>,
): Promise<ServedStream> {
  const dialled: (Endpoint | undefined)[] = []
  const dialledSockets: Socket[] = []
  const dial = async (to: Endpoint | undefined): Promise<Socket> => {
    dialled.push(to)
    const place = places[to?.port ?? '']
    if (place === undefined) throw new Error('refused')
    const socket = connect({ host: place.address, port: place.port })
    dialledSockets.push(socket)
    await once(socket, 'connect')
    return socket
  }
  const acceptor = createServer()
  const port = await listening(acceptor)
  const client = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
  const [accepted] = (await once(acceptor, 'connection')) as [Socket]
  acceptor.close()
  const served = app.streams.serve(accepted, { clientAddr: CLIENT, originalDst: SERVER, dial } as HandledFlow)
  const frames = new MessageFrames()
  const messages: Buffer[] = []
  let isOver = false
  let wake = () => {}
  client.on('error', () => {})
  client.on('data', (chunk: Buffer) => {
    frames.push(chunk)
    for (let message = frames.next(); message !== undefined; message = frames.next()) messages.push(message)
    wake()
  })
  for (const event of ['end', 'close']) {
    client.on(event, () => {
      isOver = true
      wake()
    })
  }
  return {
    client,
    served,
    dialled,
    send: (...all) => void client.write(Buffer.concat(all.map(framed))),
    async next() {
      while (messages.length === 0 && !isOver) await new Promise<void>((resolve) => (wake = resolve))
      return messages.shift()
    },
    async [Symbol.asyncDispose]() {
      client.destroy()
      await served
      for (const socket of [accepted, ...dialledSockets]) if (!socket.destroyed) throw new Error('a socket is left')
    },
  }
}
