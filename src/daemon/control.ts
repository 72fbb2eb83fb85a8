import { chmodSync, rmSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { LimpidError } from '../errors.ts'
import { stateFolder, stateFolders } from '../ruleset/state-folder.ts'
import { netNamespaceInode } from '../sys/host.ts'

const MAX_BODY_BYTES = 65_536
const REQUEST_MS = 5_000
const CONNECTIONS = 16

/** What can be asked, by method and path: `GET /stats`. GET changes nothing. The answer, and what POST brings, is JSON. */
export type ControlHandlers = Readonly<Record<string, (body: unknown) => unknown | Promise<unknown>>>

/** The socket by which a running Limpid of the calling thread's network namespace is asked and told: HTTP, for its own user alone. */
export class ControlSocket implements AsyncDisposable {
  readonly path: string
  readonly #server: Server

  private constructor(path: string, server: Server) {
    this.path = path
    this.#server = server
  }

  /**
   * Opens it; undefined when another Limpid of this network namespace has it.
   * @throws LimpidError LIMPID_CONTROL when there is no place for it.
   */
  static async open(handlers: ControlHandlers): Promise<ControlSocket | undefined> {
    const path = join(stateFolder(), controlName())
    if (await isAnswered(path)) return undefined
    rmSync(path, { force: true }) // of one that was killed
    const server = createServer(
      { requestTimeout: REQUEST_MS },
      (request, response) => void answer(request, response, handlers),
    )
    server.maxConnections = CONNECTIONS
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) =>
        reject(
          new LimpidError('LIMPID_CONTROL', `cannot open the control socket ${path}: ${cause.message}`, { cause }),
        ),
      )
      server.listen(path, resolve)
    })
    chmodSync(path, 0o600) // nobody came before: the folder is this user's alone
    return new ControlSocket(path, server)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve)) // removes the file
  }
}

/** Where a running Limpid of this network namespace may be asked. */
export function controlPaths(): string[] {
  return stateFolders().map((folder) => join(folder, controlName()))
}

function controlName(): string {
  return `control-${netNamespaceInode()}.sock`
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path)
    const end = (answered: boolean): void => {
      socket.destroy()
      resolve(answered)
    }
    socket.once('connect', () => end(true)).once('error', () => end(false))
  })
}

async function answer(request: IncomingMessage, response: ServerResponse, handlers: ControlHandlers): Promise<void> {
  const reply = (status: number, value: unknown): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(value)}\n`)
  }
  const handler = handlers[`${request.method} ${request.url}`]
  if (handler === undefined) {
    reply(404, { message: `no such request; there are ${Object.keys(handlers).join(', ')}` })
    return
  }
  try {
    reply(200, await handler(await bodyOf(request)))
  } catch (error) {
    const { code, message, cure } =
      error instanceof LimpidError ? error : new LimpidError('LIMPID_CONTROL', String(error))
    reply(400, { code, message, cure })
  }
}

/** undefined where there is none. @throws LimpidError LIMPID_CONTROL when it is too long, or no JSON. */
async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) throw new LimpidError('LIMPID_CONTROL', `a request has at most ${MAX_BODY_BYTES} bytes`)
    chunks.push(chunk)
  }
  if (bytes === 0) return undefined
  try {
    return JSON.parse(Buffer.concat(chunks).toString())
  } catch (cause) {
    throw new LimpidError('LIMPID_CONTROL', `the request is no JSON: ${(cause as Error).message}`, { cause })
  }
}
