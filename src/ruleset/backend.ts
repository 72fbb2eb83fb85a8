import type { RulesConfig } from '../config/types.ts'
import { LimpidError } from '../errors.ts'
import { iptablesBackend } from './backend-iptables.ts'
import { nftBackend } from './backend-nft.ts'
import type { CleanerProcess } from './cleaner.ts'
import type { BackendName, Plan } from './plan.ts'
import type { Script } from './script.ts'

/** The two sets of rules: `main` brings packets to listeners; `guard` outlives it, and drops what that did not take. */
export type Role = 'main' | 'guard'

/** What there is of each role; undefined when nothing. */
export type Listings = Readonly<Record<Role, string | undefined>>

/** Rules of ours that are in the kernel, of whichever backend and under whatever name. */
export interface FoundRules {
  readonly backend: BackendName
  /** `nft table inet limpid`, `iptables chains limpid`. */
  readonly label: string
  /** The nft table's name, or what the chains' names begin with. */
  readonly name: string
  readonly role: Role
  /** They belong to a running process, and go with it (nft's `flags owner`). */
  readonly owned: boolean
  /** As the program prints them, without counters and what fills itself. */
  readonly listing: string
  readonly digest: string | undefined
}

/** Rules that go when this process does. */
export interface OwnedRules {
  /** Lets them go. A second call does nothing. */
  close(): Promise<void>
  /**
   * Has the program make a change to rules that nobody else can change: undefined where others can.
   * @throws LimpidError LIMPID_PROGRAM when nothing was changed.
   */
  readonly change?: (text: string) => Promise<void>
  /** Whether others can change them, so that load() puts them back, and they are owned still. */
  readonly isShared: boolean
  /** A process that goes on removing them for a moment when we are gone. */
  readonly cleaner?: CleanerProcess
}

/** What one program does with rules. Everything happens in the network namespace of the calling thread. */
export interface Backend {
  readonly name: BackendName
  /** `nft table inet limpid`: how the rules of a role are called in messages. */
  label(rules: RulesConfig, role: Role): string
  /**
   * Asks the kernel for what the plan needs, and changes nothing.
   * @returns whether rules can be tied to this process at once, by the kernel.
   * @throws LimpidError LIMPID_KERNEL that names what is missing; LIMPID_CAPABILITY when this process may not ask.
   */
  probe(plan: Plan): Promise<{ readonly canOwn: boolean; readonly notices: readonly string[] }>
  /** With the version, listings of equal rules are equal. */
  version(): Promise<string>
  /** What there is of each role under this name; undefined when nothing. */
  list(rules: RulesConfig): Promise<Listings>
  /** For people: with counters. */
  listWithCounters(found: FoundRules): Promise<string>
  /** All that are ours. None where the program is not there. */
  listOurs(): Promise<FoundRules[]>
  /** The digest of a plan's scripts, or of a listing; equal when the listing is of those scripts. */
  digest(text: string): string | undefined
  countRules(listing: string): number
  /** Loads scripts of a role in the place of what there is of it: all or nothing. @throws LimpidError LIMPID_PROGRAM */
  load(rules: RulesConfig, role: Role, scripts: readonly Script[]): Promise<void>
  /** No error when there are none. */
  remove(name: string): Promise<void>
  /** Loads the rules `main` so that they go when this process does, however it ends. `onLost`: they went before. */
  own(plan: Plan, onLost: (error: LimpidError) => void): Promise<OwnedRules>
  /** Things of others that have the name of a role. */
  isForeign(rules: RulesConfig, role: Role): Promise<boolean>
}

export const BACKENDS: Readonly<Record<BackendName, Backend>> = { nft: nftBackend, iptables: iptablesBackend }

/** Both roles' rules, of every backend. */
export async function listOurRules(): Promise<FoundRules[]> {
  const lists = await Promise.all(Object.values(BACKENDS).map((backend) => backend.listOurs()))
  return lists.flat()
}

/** The text of a role's scripts as one; '' when there are none. */
export function scriptsText(scripts: readonly Script[]): string {
  return scripts.map(({ text }) => text).join('')
}

/**
 * The backend for a config on this host: what the config says; with `auto` nft where it works, else iptables.
 * @throws LimpidError of nft, when neither works.
 */
export async function chooseBackend(rules: RulesConfig): Promise<BackendName> {
  if (rules.backend !== 'auto') return rules.backend
  try {
    await nftBackend.version()
    return 'nft'
  } catch (error) {
    if (!(error instanceof LimpidError)) throw error
    try {
      await iptablesBackend.version()
      return 'iptables'
    } catch {
      throw error // the one that we would rather have
    }
  }
}

/** The backend for what is only shown or compared: on a host with neither program it is nft's that is shown. */
export async function backendToShow(rules: RulesConfig): Promise<BackendName> {
  try {
    return await chooseBackend(rules)
  } catch {
    return 'nft'
  }
}
