import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { HandledFlow, StreamApp } from '../proxy/app.ts'

/** Makes the stream through which one direction of a flow goes; undefined: it goes as it is. Called once for each flow. */
export type MakeTransform = (flow: HandledFlow) => Duplex | undefined | Promise<Duplex | undefined>

/**
 * An app that relays a flow through streams of yours, such as a Transform of node:stream. Each direction ends by itself: what the sender
 * ended with FIN is flushed and then ended towards the receiver, and the other direction goes on. No more waits than the sockets and your
 * streams hold (`highWaterMark`). An error of yours ends that flow, with a reset for both sides and close reason `app-failed`.
 */
export function transformApp(make: {
  readonly clientToUpstream?: MakeTransform
  readonly upstreamToClient?: MakeTransform
}): StreamApp {
  return {
    async serve(client: Socket, flow: HandledFlow): Promise<void> {
      const made: Duplex[] = []
      const makeOne = async (one: MakeTransform | undefined): Promise<Duplex[]> => {
        const stream = await one?.(flow)
        if (stream === undefined) return []
        made.push(stream)
        return [guarded(stream)]
      }
      try {
        const clientToUpstream = await makeOne(make.clientToUpstream)
        const upstreamToClient = await makeOne(make.upstreamToClient)
        const upstream = await flow.dial()
        await Promise.all([
          pipeline([client, ...clientToUpstream, upstream]),
          pipeline([upstream, ...upstreamToClient, client]),
        ])
      } finally {
        for (const stream of made) stream.destroy()
      }
    },
  }
}

/** What node:stream calls of a stream. */
const CALLED = ['_transform', '_flush', '_write', '_writev', '_final', '_read'] as const

/** The same stream: what one of its functions throws, or rejects with, ends the stream and not the process. */
function guarded(stream: Duplex): Duplex {
  const functions = stream as unknown as Partial<
    Record<(typeof CALLED)[number], ((...args: unknown[]) => unknown) | null>
  >
  const fail = (error: unknown): void => {
    stream.destroy(error instanceof Error ? error : new Error(String(error)))
  }
  for (const name of CALLED) {
    const called = functions[name]
    if (typeof called !== 'function') continue
    functions[name] = function (this: unknown, ...args) {
      try {
        const returned = called.apply(this, args)
        if (returned instanceof Promise) returned.catch(fail)
        return returned
      } catch (error) {
        fail(error)
        return undefined
      }
    }
  }
  stream.on('error', () => {}) // also before the pipeline listens: its owner hears of it there
  return stream
}
