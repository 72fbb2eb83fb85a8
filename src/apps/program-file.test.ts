import assert from 'node:assert/strict'
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { loadProgram } from './program-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'limpid-program-'))
after(() => rmSync(folder, { recursive: true }))

const TEXT = `import { defineConfig } from 'limpid'
export default defineConfig({
  listeners: [{ intercept: 'none', listen: '127.0.0.1:50080', to: '127.0.0.1:1' }],
  hooks: { onFlow: () => undefined },
})
`

function written(name: string, text = TEXT, mode = 0o644): string {
  const file = join(folder, name)
  writeFileSync(file, text)
  chmodSync(file, mode)
  return file
}

for (const [name, text] of [
  ['limpid.config.mjs', TEXT],
  ['limpid.config.js', TEXT],
  ['limpid.config.ts', `${TEXT}\nexport interface Unused { readonly a: string }\n`],
] as const) {
  test(`${name} is loaded, and \`limpid\` in it is this Limpid`, async () => {
    const file = written(name, text)
    const { listeners, hooks, program } = await loadProgram(file)
    assert.deepEqual([listeners[0]?.to, hooks?.deadlineMs, program], [{ host: '127.0.0.1', port: 1 }, 1000, file])
  })
}

test('what others can write is not run: the file, its folder, and what they could put in its place', async () => {
  const marker = 'throw new Error("it was run")\n'
  const refused = (file: string, why: RegExp) =>
    assert.rejects(loadProgram(file), { code: 'LIMPID_CONFIG', message: why })
  await refused(written('others.mjs', marker, 0o646), /is code, and is not run: others can write it/)
  mkdirSync(join(folder, 'open'))
  const within = written('open/limpid.config.mjs', marker)
  for (const mode of [0o777, 0o1777]) {
    chmodSync(join(folder, 'open'), mode)
    await refused(within, /its folder .*open: others can write it/)
  }
  chmodSync(join(folder, 'open'), 0o777)
  mkdirSync(join(folder, 'open', 'deep'))
  await refused(written('open/deep/limpid.config.mjs', marker), /its folder .*open: others can write it/)
  const link = join(folder, 'link.mjs')
  symlinkSync(within, link)
  await refused(link, /its folder .*open/)
  if (process.geteuid!() !== 0) return
  const group = written('group.mjs', marker, 0o664)
  chownSync(group, 0, 1)
  chmodSync(group, 0o664)
  await refused(group, /its group, gid 1, can write it/)
  const foreign = written('foreign.mjs', marker)
  chownSync(foreign, 1, 0)
  await refused(foreign, /it belongs to uid 1/)
  mkdirSync(join(folder, 'theirs'))
  const inTheirs = written('theirs/limpid.config.mjs', marker)
  chownSync(join(folder, 'theirs'), 1, 0)
  await refused(inTheirs, /its folder .*theirs: it belongs to uid 1/)
})

test('what cannot be loaded is told with its file and the reason', async () => {
  const refused = (file: string, why: RegExp) =>
    assert.rejects(loadProgram(file), { code: 'LIMPID_CONFIG', message: why })
  await refused(join(folder, 'none.mjs'), /there is no such file/)
  await refused(written('broken.mjs', 'export default {'), /cannot load .*broken\.mjs: SyntaxError/)
  await refused(written('throws.mjs', 'throw new Error("not today")'), /throws\.mjs: Error: not today/)
  await refused(written('plain.mjs', 'export default { listeners: [] }'), /does not come from defineConfig/)
  await refused(written('nothing.mjs', 'export const a = 1'), /does not come from defineConfig/)
  await refused(
    written('wrong.mjs', TEXT.replace("'none'", "'nun'")),
    /wrong\.mjs: listeners\[0\]\.intercept: expected/,
  )
})
