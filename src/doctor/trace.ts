/** One step of a packet through nft, as `nft -a monitor trace` tells it. */
export interface TraceStep {
  readonly family: string
  readonly table: string
  readonly chain: string
  readonly kind: 'packet' | 'rule' | 'verdict' | 'policy'
  /** The rule without counters; for a packet its description. */
  readonly text: string
  readonly handle: number | undefined
  /** accept, drop, continue, `jump divert` … */
  readonly verdict: string | undefined
  /** The packet's mark after this step, where it is told: 0 is not. */
  readonly mark: number | undefined
}

const LINE = /^trace id ([0-9a-f]+) (\S+) (\S+) (\S+) (packet:|rule|verdict|policy|unknown) ?(.*)$/

/** Packets in the order in which they came, each with its steps. Lines of another form are passed over. */
export function parseTrace(text: string): TraceStep[][] {
  const packets = new Map<string, TraceStep[]>()
  for (const line of text.split('\n')) {
    const match = LINE.exec(line.trim())
    if (match === null) continue
    const [, id, family, table, chain, word, rest] = match as unknown as [
      string,
      string,
      string,
      string,
      string,
      string,
      string,
    ]
    const step = parseStep(word, rest)
    if (step === undefined) continue
    packets.set(id, [...(packets.get(id) ?? []), { family, table, chain, ...step }])
  }
  return [...packets.values()]
}

function parseStep(word: string, rest: string): Omit<TraceStep, 'family' | 'table' | 'chain'> | undefined {
  const mark = /\b(?:meta )?mark (0x[0-9a-f]+)\s*$/.exec(rest)?.[1]
  const value = mark === undefined ? undefined : Number(mark)
  if (word === 'packet:') return { kind: 'packet', text: rest, handle: undefined, verdict: undefined, mark: value }
  if (word === 'rule') {
    const match = /^(.*?)(?: # handle (\d+))? \(verdict ([^)]*)\)/.exec(rest)
    if (match === null) return undefined
    const text = match[1]!.replaceAll(/\bcounter packets \d+ bytes \d+/g, 'counter').trim()
    return {
      kind: 'rule',
      text,
      handle: match[2] === undefined ? undefined : Number(match[2]),
      verdict: match[3],
      mark: undefined,
    }
  }
  if (word !== 'verdict' && word !== 'policy') return undefined
  const verdict = rest.replace(/\s*(?:meta )?mark 0x[0-9a-f]+\s*$/, '').trim()
  return { kind: word, text: '', handle: undefined, verdict, mark: value ?? 0 }
}

/** The first packet from one address to another, with these words in its description (`tcp flags == syn`). */
export function findPacket(packets: readonly TraceStep[][], from: string, to: string, words: RegExp): TraceStep[] {
  return (
    packets.find(([first]) => {
      const text = first?.text ?? ''
      return text.includes(`saddr ${from} `) && text.includes(`daddr ${to} `) && words.test(text)
    }) ?? []
  )
}
