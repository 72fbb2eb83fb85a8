import type { Command } from 'commander'
import type { Colour } from '../colour.ts'

/** What a command is given, and what it leaves behind. */
export interface Invocation {
  /** The exit code of the process; 0 unless the command sets another. */
  exitCode: number
  /** For stdout. */
  readonly colour: Colour
}

/** One file per command: its arguments, flags and action. */
export interface CommandModule {
  configure(command: Command, invocation: Invocation): void
}
