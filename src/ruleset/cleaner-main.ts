// Started by cleaner.ts when the process that loaded the chains is gone, or wants them gone. Arguments: that process's pid and
// start time, then PROGRAM=NAME of each set of chains.
import { removeChains } from './iptables-commands.ts'
import type { ChainProgram } from './iptables-text.ts'
import { JournalFile } from './journal.ts'

const [pid, startTime, ...chains] = process.argv.slice(2)
const journal = JournalFile.find().read()
const isOthers = journal !== undefined && (journal.pid !== Number(pid) || journal.startTime !== startTime)
// one that started meanwhile has swept, and its chains have the same names
if (!isOthers) {
  for (const text of chains) {
    const [program, name] = text.split('=')
    // the others must go although one cannot; the next start sweeps what is left
    await removeChains(program as ChainProgram, name!).catch(() => {})
  }
}
