import { hostname } from 'node:os'
import type { ProgramConfig } from '../apps/define-config.ts'
import type { NatsLink } from './nats-link.ts'
import { type OriginStats, openPolicyOrigin, type PolicyOrigin } from './policy-origin.ts'
import { RecordSinks, type SinkStats } from './record-sinks.ts'

/** What this gateway has in common with others: the policy that comes from somewhere, and records that go there. Of the supervisor alone. */
export class Sharing implements AsyncDisposable {
  /** With the policy to begin with. */
  readonly config: ProgramConfig
  /** Undefined: the policy is the file's. */
  readonly origin: PolicyOrigin | undefined
  /** Undefined: records go to stdout alone. */
  readonly records: RecordSinks | undefined
  readonly #link: NatsLink | undefined

  private constructor(
    config: ProgramConfig,
    origin: PolicyOrigin | undefined,
    records: RecordSinks | undefined,
    link: NatsLink | undefined,
  ) {
    this.config = config
    this.origin = origin
    this.records = records
    this.#link = link
  }

  /** @throws LimpidError when there is no policy to begin with, or no place for records. */
  static async open(written: ProgramConfig, note: (line: string) => void): Promise<Sharing> {
    const link = await openLink(written, note)
    let records: RecordSinks | undefined
    let origin: PolicyOrigin | undefined
    try {
      records = written.records && (await RecordSinks.open(written.records, { link, note }))
      origin = await openPolicyOrigin(written, { link, note })
      const { policyFrom: _, nats: __, records: ___, ...own } = written // who we are at NATS is no worker's affair
      const config = Object.freeze(origin === undefined ? own : { ...own, policy: await origin.first() })
      return new Sharing(config, origin, records, link)
    } catch (error) {
      await closeAll(origin, records, link)
      throw error
    }
  }

  get stats(): { readonly origin: OriginStats | undefined; readonly records: readonly SinkStats[] } {
    return { origin: this.origin?.stats, records: this.records?.stats ?? [] }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await closeAll(this.origin, this.records, this.#link)
  }
}

/** What uses the link before the link. */
async function closeAll(
  origin: PolicyOrigin | undefined,
  records: RecordSinks | undefined,
  link: NatsLink | undefined,
): Promise<void> {
  await origin?.[Symbol.asyncDispose]()
  await records?.close()
  await link?.[Symbol.asyncDispose]()
}

async function openLink(config: ProgramConfig, note: (line: string) => void): Promise<NatsLink | undefined> {
  const { nats, policyFrom, records } = config
  if (nats === undefined || (policyFrom?.kind !== 'bucket' && records?.subject === undefined)) return undefined
  const { NatsLink } = await import('./nats-link.ts')
  const link = new NatsLink(nats, { name: `limpid ${records?.gateway ?? hostname()}`, note })
  await link.begin()
  return link
}
