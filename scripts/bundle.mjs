// Puts a package into the one built file that stands for it: of the time to start, Node spent a third on reading its many files.
import { readFileSync, renameSync, rmSync } from 'node:fs'
import { rolldown } from 'rolldown'
import { ROOT } from './setup.mjs'

/** Built files that hand on what a package exports, by the package. */
const DOORS = { zod: 'config/zod.js', yaml: 'config/yaml.js' }

for (const [name, door] of Object.entries(DOORS)) await bundle(name, `${ROOT}/dist/${door}`)

/** Replaces `file`, which may be bundled already. The package's licence wants to be where its code is. */
async function bundle(name, file) {
  const folder = `${ROOT}/node_modules/${name}`
  const { version } = JSON.parse(readFileSync(`${folder}/package.json`, 'utf8'))
  const notice = `/*! ${name} ${version}\n\n${readFileSync(`${folder}/LICENSE`, 'utf8').trim()}\n*/`
  const build = await rolldown({ input: file, platform: 'node', logLevel: 'warn' })
  await build.write({ file: `${file}.new`, format: 'esm', banner: notice })
  await build.close()
  renameSync(`${file}.new`, file)
  rmSync(`${file}.map`, { force: true }) // it was of the line that stood there
}
