import type { Protocol } from '../config/types.ts'
import type { Endpoint, Family } from '../net/address.ts'
import type { ScenarioName } from './scenario.ts'
import type { SocketRow } from './sockets.ts'

/** What `limpid lab --json` prints. Fields are added, never changed, while `format` stays 1. */
export interface LabReport {
  readonly format: 1
  /** Addresses of the three hosts by family; `xy` and `xz` are X's towards Y and towards Z. */
  readonly topology: Readonly<Record<Family, Readonly<Record<'y' | 'xy' | 'xz' | 'z', string>>>>
  /** The same where X is a bridge: one subnet, and one address of X's own. */
  readonly bridge: LabReport['topology']
  /** One for each scenario and family, in the order in which they ran. */
  readonly runs: readonly LabRun[]
  readonly passed: boolean
  /** Milliseconds from the start of the lab to the end of the last run. */
  readonly durationMs: number
  /** With `--keep`: the command that opens a shell on each host (`X`, or `X (bridge)`), while the lab stays up. */
  readonly enter?: Readonly<Record<string, string>>
}

/** One scenario over one family. What could not be observed is left out, and `differences` says why. */
export interface LabRun {
  readonly scenario: ScenarioName
  readonly title: string
  readonly family: Family
  readonly protocol: Protocol
  /** What an operator types on X. */
  readonly command: string
  /** The configuration file that the command names. */
  readonly file?: string
  /** Where X itself sent from, when no client takes part. */
  readonly sentFrom?: Endpoint
  /** Whom the client dialled. */
  readonly dialled: Endpoint
  /** X's sockets while the flow was open: those that listen, then those of the flow. */
  readonly sockets: readonly SocketRow[]
  /** The client's end of the flow, and the peers that both ends saw. */
  readonly client?: Endpoint
  readonly clientSees?: Endpoint
  readonly serverSees?: Endpoint
  readonly predicted: Knowledge
  readonly observed?: Knowledge
  /** Bytes that went to Z and came back unchanged, each way; over TCP, FIN went through both ways too. */
  readonly bytes?: number
  /** What else was predicted, beside what was observed. */
  readonly evidence?: readonly Evidence[]
  /** Each way in which what was observed is not what was predicted; empty when it passed. */
  readonly differences: readonly string[]
  readonly passed: boolean
  readonly durationMs: number
}

/** Who knows whom: `server`, `client` and `proxy` stand for Z, Y and X; anything else is an address of none of them. */
export interface Knowledge {
  readonly clientSees: string
  /** `client:port` when it is also the client's port. */
  readonly serverSees: string
  readonly verdict: string
}

/** One line of the report with its prediction: of a capture, or what somebody got and heard. */
export interface Evidence {
  /** Whose, such as `Z captures`. */
  readonly what: string
  readonly predicted: string
  readonly observed: string
}
