import { spawn } from 'node:child_process'
import { LimpidError } from '../errors.ts'
import { endByPipe, findProgram, firstLine } from '../sys/program.ts'

const ANSWER_MS = 2_000
const EXIT_MS = 1_000

/** nft tables that are there until they are released. */
export interface HeldTables {
  /** A second call does nothing. */
  release(): Promise<void>
}

/**
 * Adds nft tables (family and name) by commands of nft. They belong to a child `nft -i` that reads from a pipe of ours, so
 * they go when we do, however that happens; before Linux 5.12, where tables have no owner, they go when they are released.
 * @throws LimpidError LIMPID_PROGRAM with nft's own words when the kernel refuses.
 */
export async function holdTables(tables: readonly string[], commands: readonly string[]): Promise<HeldTables> {
  // a session of its own: Ctrl-C on the terminal is for us, who then release them
  const child = spawn(findProgram('nft'), ['-i'], {
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, LC_ALL: 'C' },
  })
  child.stdin.on('error', () => {}) // it may have ended
  let released: Promise<void> | undefined
  const held: HeldTables = {
    release: () => {
      released ??= endByPipe(child, EXIT_MS, tables.map((table) => `delete table ${table}\n`).join(''))
      return released
    },
  }
  try {
    await new Promise<void>((resolve, reject) => {
      let said = ''
      let complained = ''
      const fail = (why: string) => {
        clearTimeout(timer)
        reject(new LimpidError('LIMPID_PROGRAM', `nft -i: ${firstLine(complained) ?? why}`))
      }
      const timer = setTimeout(() => fail(`no answer in ${ANSWER_MS} ms`), ANSWER_MS)
      child.stderr.on('data', (bytes: Buffer) => {
        complained += bytes.toString()
      })
      child.stdout.on('data', (bytes: Buffer) => {
        said += bytes.toString()
        // the list comes when everything before it is done
        if (!said.split('\n').includes(`table ${tables.at(-1)}`)) return
        clearTimeout(timer)
        resolve()
      })
      child.once('error', (error) => fail(error.message))
      child.once('exit', () => fail('it ended'))
      child.stdin.write(`${[...commands, 'list tables'].join('\n')}\n`)
    })
  } catch (error) {
    await held.release()
    throw error
  }
  return held
}
