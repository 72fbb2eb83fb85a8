// The thread of apart.ts: parses one text, and tells what it says a piece at a time.
import { parentPort, workerData } from 'node:worker_threads'
import type { Piece, Text } from './apart.ts'
import { parseConfig } from './parse.ts'
import { parsePolicy } from './policy-file.ts'
import type { PolicyConfig } from './policy-types.ts'
import { ConfigError } from './problem.ts'
import type { Config } from './types.ts'

const RULES_AT_ONCE = 100 // to take them over is a millisecond or two

const pieces = piecesOf(workerData as Text)
const tellNext = (): void => parentPort!.postMessage(pieces.next().value satisfies Piece)
parentPort!.on('message', tellNext)
tellNext()

function* piecesOf(text: Text): Generator<Piece, Piece> {
  let frame: Config | PolicyConfig
  let policy: PolicyConfig
  try {
    if (text.kind === 'config') {
      const config = parseConfig(text.text, text.fileName, text.options)
      policy = config.policy
      frame = { ...config, policy: { ...policy, rules: [] } }
    } else {
      policy = parsePolicy(text.text, text.fileName, text.surroundings)
      frame = { ...policy, rules: [] }
    }
  } catch (error) {
    if (error instanceof ConfigError) return { kind: 'wrong', problems: error.problems }
    throw error
  }
  yield { kind: 'frame', value: frame }
  for (let at = 0; at < policy.rules.length; at += RULES_AT_ONCE) {
    yield { kind: 'rules', rules: policy.rules.slice(at, at + RULES_AT_ONCE) }
  }
  return { kind: 'end' }
}
