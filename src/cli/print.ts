/** Data goes to stdout, everything else to stderr. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`)
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** A line for the person at the terminal. */
export function note(line: string): void {
  process.stderr.write(`${line}\n`)
}
