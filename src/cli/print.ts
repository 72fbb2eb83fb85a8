import { printable } from '../net/printable.ts'

/** Data goes to stdout, everything else to stderr. */
export function printLine(line: string): void {
  process.stdout.write(`${line}\n`)
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`)
}

/** A line for the person at the terminal. What others have chosen may stand in it (an error of a hook, of a list): it stays one line. */
export function note(line: string): void {
  process.stderr.write(`${printable(line)}\n`)
}
