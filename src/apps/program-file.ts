import { closeSync, fstatSync, openSync, realpathSync, statSync } from 'node:fs'
import module, { createRequire } from 'node:module'
import { dirname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { ConfigError } from '../config/problem.ts'
import { distrust, distrustFolder } from '../config/trust.ts'
import { LimpidError } from '../errors.ts'
import type { ProgramConfig } from './define-config.ts'

/** Since Node 22.15, in this thread. */
interface ResolvesHere {
  registerHooks?(hooks: {
    resolve(specifier: string, context: object, next: (specifier: string, context: object) => object): object
  }): unknown
}

/** What the program's `import … from 'limpid'` gets: this very Limpid, wherever the file lies. */
const LIMPID = new URL('../index.js', import.meta.url).href

/**
 * Loads a configuration that is code: its default export is what defineConfig() returned. With root's rights, perhaps: so only where
 * nobody else can write it.
 * @throws LimpidError LIMPID_CONFIG when others can write it or its folder, and when it cannot be loaded.
 */
export async function loadProgram(path: string): Promise<ProgramConfig> {
  const file = trustedFile(path)
  let exported: unknown
  try {
    exported = await importDefault(file)
  } catch (cause) {
    if (cause instanceof ConfigError) throw new ConfigError(cause.problems.map((problem) => `${path}: ${problem}`))
    if (cause instanceof LimpidError) throw new LimpidError(cause.code, `${path}: ${cause.message}`, cause)
    throw new LimpidError('LIMPID_CONFIG', `cannot load ${path}: ${cause}`, { cause })
  }
  const { limits, rules } = Object(exported) as Partial<ProgramConfig>
  if (limits === undefined || rules === undefined) {
    throw new LimpidError('LIMPID_CONFIG', `${path}: its default export does not come from defineConfig()`, {
      cure: "write: import { defineConfig } from 'limpid'; export default defineConfig({ … })",
    })
  }
  return { ...(exported as ProgramConfig), program: file }
}

/** The file itself, beyond links. @throws LimpidError LIMPID_CONFIG when it cannot be read, or others can write it. */
function trustedFile(path: string): string {
  let file: string
  let why: string | undefined
  const ownUid = process.geteuid!()
  try {
    file = realpathSync(resolve(path))
    const fd = openSync(file, 'r')
    why = distrust(fstatSync(fd), ownUid)
    closeSync(fd)
    for (let folder = dirname(file), isOwn = true; why === undefined; folder = dirname(folder), isOwn = false) {
      const reason = distrustFolder(statSync(folder), ownUid, { isOwn })
      if (reason !== undefined) why = `its folder ${folder}: ${reason}`
      if (folder === dirname(folder)) break
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const because = code === 'ENOENT' ? 'there is no such file' : code
    throw new LimpidError('LIMPID_CONFIG', `cannot read ${path}: ${because}`, { cure: 'name another with -c', cause })
  }
  if (why === undefined) return file
  throw new LimpidError('LIMPID_CONFIG', `${path} is code, and is not run: ${why}`, {
    cure: 'let it, and the folder that it is in, belong to root or to you, and nobody else write there: chmod go-w',
  })
}

async function importDefault(file: string): Promise<unknown> {
  if (/\.m?ts$/.test(file) && !hasTypes()) return await importByJiti(file)
  provideLimpid()
  return ((await import(pathToFileURL(file).href)) as { default?: unknown }).default
}

/** Whether this Node takes types out of a file by itself: 22.18 and later (process.features.typescript). */
function hasTypes(): boolean {
  return Boolean((process.features as { typescript?: unknown }).typescript)
}

let isProvided = false

/** `limpid` is this Limpid: not what stands in a node_modules folder near the file, which may be another version, or somebody else's. */
function provideLimpid(): void {
  if (isProvided) return
  isProvided = true
  const { registerHooks } = module as ResolvesHere
  if (registerHooks !== undefined) {
    registerHooks({
      resolve: (specifier, context, next) =>
        specifier === 'limpid' ? { url: LIMPID, shortCircuit: true } : next(specifier, context),
    })
    return
  }
  // in a thread of Node's own, which gets the function as text
  const source = `export const resolve = (specifier, context, next) =>
    specifier === 'limpid' ? { url: ${JSON.stringify(LIMPID)}, shortCircuit: true } : next(specifier, context)`
  module.register(`data:text/javascript,${encodeURIComponent(source)}`)
}

/** For Node before 22.18. @throws LimpidError LIMPID_CONFIG where jiti is not installed. */
async function importByJiti(file: string): Promise<unknown> {
  let path: string
  try {
    path = createRequire(import.meta.url).resolve('jiti')
  } catch (cause) {
    throw new LimpidError('LIMPID_CONFIG', `Node.js ${process.versions.node} cannot read TypeScript by itself`, {
      cure: 'take Node.js 22.18 or later, install jiti beside limpid (npm install jiti@2.7), or write the file as .mjs',
      cause,
    })
  }
  const { createJiti } = (await import(pathToFileURL(path).href)) as typeof import('jiti')
  // nothing is written: neither into node_modules/.cache nor into /tmp, where others might lay code ready
  const jiti = createJiti(file, { fsCache: false, virtualModules: { limpid: await import(LIMPID) } })
  return await jiti.import(file, { default: true })
}
