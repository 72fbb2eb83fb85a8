import { LimpidError } from '../errors.ts'
import { firstLine, run } from '../sys/program.ts'
import { TABLE_COMMENT } from './nft.ts'

const NFT_TIMEOUT_MS = 20_000 // 10 000 prefixes load in a tenth of a second

/** What `nft -s list table` (so without counters) says about an inet table; undefined when there is none. */
export async function listTable(name: string): Promise<string | undefined> {
  return await list(['-s', 'list', 'table', 'inet', name])
}

/** The same with counters. */
export async function listTableWithCounters(name: string): Promise<string | undefined> {
  return await list(['list', 'table', 'inet', name])
}

async function list(args: readonly string[]): Promise<string | undefined> {
  const { code, stdout, stderr } = await run('nft', args, { timeoutMs: NFT_TIMEOUT_MS })
  if (code === 0) return stdout
  if (stderr.includes('No such file or directory')) return undefined
  throw nftError(args.join(' '), stderr)
}

/** Loads a text as one transaction: all of it or nothing. */
export async function loadText(text: string): Promise<void> {
  const { code, stderr } = await run('nft', ['-f', '-'], { input: text, timeoutMs: NFT_TIMEOUT_MS })
  if (code !== 0) throw nftError('-f -', stderr)
}

/** Removes an inet table; no error when it is gone already. */
export async function deleteTable(name: string): Promise<void> {
  const { code, stderr } = await run('nft', ['delete', 'table', 'inet', name])
  if (code !== 0 && !stderr.includes('No such file or directory')) throw nftError(`delete table inet ${name}`, stderr)
}

/** Nothing when the kernel would take the text, else why not. Reaches the kernel, changes nothing (nft(8), --check). */
export async function checkText(text: string): Promise<string | undefined> {
  const { code, stderr } = await run('nft', ['-c', '-f', '-'], { input: text, timeoutMs: NFT_TIMEOUT_MS })
  return code === 0 ? undefined : (firstLine(stderr) ?? `nft ended with exit code ${code}`)
}

export async function nftVersion(): Promise<string> {
  const { stdout } = await run('nft', ['--version'])
  return stdout.trim()
}

/** Whether a listing is that of a table of ours. */
export function isOurs(listing: string): boolean {
  return listing.includes(`\tcomment "${TABLE_COMMENT}`)
}

/** Whether a listing is that of a table that belongs to a running process (`flags owner`, or with others). */
export function isOwned(listing: string): boolean {
  return /^\tflags [a-z,]*\bowner\b/m.test(listing)
}

export function countRules(listing: string): number {
  const inChains = listing.split('\n').filter((line) => line.startsWith('\t\t') && !line.startsWith('\t\t\t'))
  return inChains.filter((line) => !/^\t\t(type|flags|elements|auto-merge|size|timeout|policy)\b/.test(line)).length
}

function nftError(args: string, stderr: string): LimpidError {
  return new LimpidError('LIMPID_PROGRAM', `nft ${args}: ${firstLine(stderr) ?? 'failed without a word'}`)
}
