/**
 * Every error that Limpid raises, by code. docs/errors.md explains each one; a test holds the two lists together.
 * Exit codes follow sysexits(3) where it has a word for the case: 77 EX_NOPERM, 78 EX_CONFIG.
 */
export const EXIT_CODES = {
  LIMPID_BYPASS: 1,
  LIMPID_CAPABILITY: 77,
  LIMPID_CONFIG: 78,
  LIMPID_CONTROL: 1,
  LIMPID_DIAL_REFUSED: 1,
  LIMPID_DIAL_TIMEOUT: 1,
  LIMPID_DIAL_UNREACHABLE: 1,
  LIMPID_DIAL_FAILED: 1,
  LIMPID_DIAL_SOURCE: 1,
  LIMPID_FFI: 1,
  LIMPID_FORWARDING: 1,
  LIMPID_HOST_NAME: 1,
  LIMPID_INTERFACE: 78,
  LIMPID_KERNEL: 1,
  LIMPID_LAB: 1,
  LIMPID_LIST: 78,
  LIMPID_LISTEN: 1,
  LIMPID_NAMESPACE: 77,
  LIMPID_NATS: 1,
  LIMPID_POLICY_SOURCE: 1,
  LIMPID_PROGRAM: 1,
  LIMPID_RECORDS: 1,
  LIMPID_RULES_CLASH: 1,
  LIMPID_RULES_FAILED: 1,
  LIMPID_RULES_HELD: 1,
  LIMPID_SEND: 1,
  LIMPID_SYSCALL: 1,
  LIMPID_USAGE: 2,
  LIMPID_WORKER: 1,
} as const

export type ErrorCode = keyof typeof EXIT_CODES

export interface ErrorDetails {
  /** What to do about it: one sentence, shown after the message. */
  cure?: string | undefined
  cause?: unknown
}

/** An error with a code, a message that says what and why with values, and what to do. */
export class LimpidError extends Error {
  readonly code: ErrorCode
  readonly cure: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'LimpidError'
    this.code = code
    this.cure = details.cure
  }

  /** The process exit code for this error when it ends a command. */
  get exitCode(): number {
    return EXIT_CODES[this.code]
  }

  /** One line: `CODE: what and why; what to do`. */
  override toString(): string {
    const line = `${this.code}: ${this.message}${this.cure === undefined ? '' : `; ${this.cure}`}`
    return line.replaceAll(/\s*\n\s*/g, ' ')
  }
}

const SHOWN = 200 // characters of what was thrown

/** Whatever was thrown, on one line. Never throws itself, whatever `textOf` does. */
export function thrownText(error: unknown, textOf: (error: unknown) => string = String): string {
  try {
    return textOf(error).replaceAll(/\s+/g, ' ').slice(0, SHOWN)
  } catch {
    return 'something that cannot be shown'
  }
}
