import { looksLikeQuicInitial, QuicHello } from '../inspect/quic-initial.ts'
import { type Finding, type FlowFacts, UNKNOWN } from '../policy/facts.ts'
import type { Shadow, ShadowDifference } from '../policy/shadow.ts'
import type { Watch } from '../sys/loop.ts'
import type { FirstBytes } from '../sys/socket.ts'
import type { FinalDecision } from './deciding.ts'
import { findingIn, type Glimpse, peekNow } from './peek.ts'
import type { SessionStart } from './session-start.ts'

/**
 * What the shadow policy says of one TCP flow. Nothing waits for it: where it would look into first bytes that the other policy does not
 * ask about, it sees those that come first, just before they are relayed.
 */
export class Shadowing {
  readonly #shadow: Shadow
  readonly #facts: FlowFacts
  readonly #live: FinalDecision
  readonly #isProvisional: boolean
  /** For first bytes. */
  #isWaiting = false
  difference: ShadowDifference | undefined

  /** `live`: what was decided by these facts. `isProvisional`: it counts only if the flow ends before the client says something. */
  constructor(shadow: Shadow, facts: FlowFacts, live: FinalDecision, isProvisional: boolean) {
    this.#shadow = shadow
    this.#facts = facts
    this.#live = live
    this.#isProvisional = isProvisional
    if (!isProvisional) this.#compare(facts.finding)
  }

  /** Sees what has come until now by `fd`, the client's socket. `first`: what was taken from it. */
  look(fd: number, first?: FirstBytes): void {
    if (!this.#isWaiting) return
    const finding = first === undefined ? peekNow(fd) : findingIn(first.bytes)
    if (finding === 'nothing') return
    this.#isWaiting = false
    this.#settle(finding)
  }

  /** Sees what comes next before the one who has the client's socket now, and gets its events as before. */
  lookBefore(watch: Watch): void {
    if (!this.#isWaiting) return
    const { target } = watch
    watch.target = {
      onEvents: (events) => {
        this.look(watch.fd)
        if (!this.#isWaiting) watch.target = target
        target.onEvents(events)
      },
    }
  }

  /** The flow has ended. `isSilent`: the client had the time to say something, and did not. */
  end(isSilent: boolean): void {
    if (this.#isProvisional) this.#compare(this.#facts.finding)
    if (this.#isWaiting) this.#settle(isSilent ? UNKNOWN : 'unclear')
    this.#isWaiting = false
  }

  #settle(finding: Glimpse): void {
    if (typeof finding === 'string') this.#shadow.giveUp()
    else this.#compare(finding)
  }

  #compare(finding: Finding | undefined): void {
    const compared = this.#shadow.compare({ ...this.#facts, finding }, this.#live)
    if (compared === 'inspect') this.#isWaiting = true
    else this.difference = compared
  }
}

/** The same of a UDP session, or of datagrams for which there is none; it sees those that came now. */
export function compareSession(
  shadow: Shadow | undefined,
  start: SessionStart,
  facts: FlowFacts,
  live: FinalDecision,
): ShadowDifference | undefined {
  const compared = shadow?.compare(facts, live)
  if (shadow === undefined || compared !== 'inspect') return compared as ShadowDifference | undefined
  const finding = findingOf(start.datagrams())
  const again = finding === undefined ? 'inspect' : shadow.compare({ ...facts, finding }, live)
  if (again !== 'inspect') return again
  shadow.giveUp()
  return undefined
}

/** Undefined where a hello goes on in the next datagram. */
function findingOf(datagrams: readonly Uint8Array[]): Finding | undefined {
  const quic = new QuicHello()
  for (const datagram of datagrams) {
    const answer = quic.add(datagram)
    if (answer.kind === 'match') return { protocol: 'quic', host: answer.finding.serverName }
    if (answer.kind !== 'no' || looksLikeQuicInitial(datagram)) return undefined
  }
  return UNKNOWN
}
