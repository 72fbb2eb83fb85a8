/** The programs that put rules into the kernel. */
export type RuleProgram = 'nft' | 'iptables-restore' | 'ip6tables-restore' | 'ebtables-restore'

/** What one program loads, lists and removes as a whole: one nft table, or our chains of one of the iptables programs. */
export interface Script {
  readonly program: RuleProgram
  /** Of an nft table: family and name, `inet limpid`; of chains: what their names begin with. */
  readonly name: string
  /** For the program's standard input. */
  readonly text: string
}

/** `nft table inet limpid`, `iptables chains limpid`. */
export function describeScript({ program, name }: Pick<Script, 'program' | 'name'>): string {
  return program === 'nft' ? `nft table ${name}` : `${program.replace('-restore', '')} chains ${name}`
}
