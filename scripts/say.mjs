/** Progress, on stderr. */
export function tell(line) {
  process.stderr.write(`limpid: ${line}\n`)
}

/** One line that says what is wrong and what to do, and the end. */
export function stop(line, exitCode = 1) {
  tell(line)
  process.exit(exitCode)
}
