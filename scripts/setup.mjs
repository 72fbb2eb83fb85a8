// What `npm start` and `npm test` do first: Node's version, npm packages, the build, Debian packages, namespaces.
// Plain JavaScript without dependencies, since it runs before there are any.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { withLock } from './lock.mjs'
import { ensureNamespaces } from './namespaces.mjs'
import { ensurePrograms } from './packages.mjs'
import { stop, tell } from './say.mjs'

export const ROOT = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '')
const STAMP = `${ROOT}/dist/.built-from`

/** Makes the checkout ready; ends the process with one line that says what to do where it cannot. `purpose`: start, test. */
export function setUp(purpose) {
  checkNode()
  if (process.platform !== 'linux') stop('Limpid needs Linux')
  ensurePackages()
  ensureBuild()
  ensurePrograms(purpose)
  ensureNamespaces()
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > 20 || (major === 20 && minor >= 19)) return
  stop(`Node.js ${process.versions.node} is too old: 20.19 or later is needed`)
}

function ensurePackages() {
  if (arePackagesCurrent()) return
  withLock(ROOT, () => {
    if (arePackagesCurrent()) return // another set-up did it meanwhile
    tell('installing npm packages …')
    const npm = process.env.npm_execpath
    const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
    // omit= : a production setting of the caller's must not leave out the compiler
    const env = { ...process.env, NODE_ENV: '', npm_config_omit: '' }
    const options = { cwd: ROOT, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }
    const run = npm?.endsWith('.js')
      ? spawnSync(process.execPath, [npm, ...args], options)
      : spawnSync('npm', args, options)
    if (run.status === 0) return
    process.stderr.write(`${run.stdout ?? ''}${run.stderr ?? ''}`)
    stop(`npm ci failed${run.error ? ` (${run.error.message})` : ' (above)'}; mend that, and try again`)
  })
}

/** Does node_modules have what package-lock.json names? Packages for other platforms may be missing. */
function arePackagesCurrent() {
  try {
    const wanted = packagesOf(`${ROOT}/package-lock.json`)
    const installed = packagesOf(`${ROOT}/node_modules/.package-lock.json`)
    return Object.entries(wanted).every(([path, { version, optional }]) => {
      if (path === '') return true
      const found = installed[path]
      return found === undefined ? optional === true : found.version === version && existsSync(`${ROOT}/${path}`)
    })
  } catch {
    return false // no node_modules, or not by npm
  }
}

function packagesOf(path) {
  return JSON.parse(readFileSync(path, 'utf8')).packages
}

function ensureBuild() {
  if (builtFrom() === fingerprint()) return
  withLock(ROOT, () => {
    const before = fingerprint()
    if (builtFrom() === before) return
    tell('building …')
    for (const step of [['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json'], ['scripts/bundle.mjs']]) {
      const run = spawnSync(process.execPath, step, { cwd: ROOT, encoding: 'utf8' })
      if (run.status === 0) continue
      process.stderr.write(`${run.stdout}${run.stderr}`)
      stop('the build failed (above)')
    }
    removeOrphans()
    mkdirSync(`${ROOT}/dist`, { recursive: true })
    writeFileSync(STAMP, before)
  })
}

function builtFrom() {
  return existsSync(STAMP) && existsSync(`${ROOT}/dist/cli/main.js`) ? readFileSync(STAMP, 'utf8') : undefined
}

/** Changes with every source file that is added, edited, or removed. */
function fingerprint() {
  const hash = createHash('sha256')
  const others = ['tsconfig.json', 'package-lock.json', 'scripts/bundle.mjs'].map((name) => `${ROOT}/${name}`)
  const files = [...filesUnder(`${ROOT}/src`), ...others]
  for (const file of files) {
    const { mtimeMs, size } = statSync(file)
    hash.update(`${file}\n${mtimeMs}\n${size}\n`)
  }
  return hash.digest('hex')
}

/** Built files whose source is gone: their tests must not run any more. */
function removeOrphans() {
  if (!existsSync(`${ROOT}/dist`)) return
  for (const file of filesUnder(`${ROOT}/dist`)) {
    const source = /^(.*)\.(?:js|js\.map|d\.ts)$/.exec(file.slice(`${ROOT}/dist/`.length))?.[1]
    if (source !== undefined && !existsSync(`${ROOT}/src/${source}.ts`)) rmSync(file, { force: true })
  }
}

/** Absolute paths of all files below a folder, in order. */
export function filesUnder(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath ?? entry.path}/${entry.name}`)
    .sort()
}
