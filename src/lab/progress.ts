/** Tells a person at the terminal what goes on, on stderr. */
export interface Progress {
  /** What is being done now. */
  step(text: string): void
  /** Makes room for other output. */
  clear(): void
}

/** One line that is written over on a terminal; plain lines elsewhere; nothing when `quiet`. */
export function progressOn(stream: NodeJS.WriteStream, quiet: boolean): Progress {
  if (quiet) return { step: () => {}, clear: () => {} }
  if (stream.isTTY !== true || process.env.TERM === 'dumb') {
    return { step: (text) => stream.write(`${text}\n`), clear: () => {} }
  }
  return {
    step: (text) => stream.write(`\r\x1b[K${text.slice(0, (stream.columns ?? 80) - 1)}`),
    clear: () => stream.write('\r\x1b[K'),
  }
}
