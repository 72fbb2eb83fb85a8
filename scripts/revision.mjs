// A build of another revision of this repository, in a temporary git worktree.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import { stop, tell } from './say.mjs'
import { ROOT } from './setup.mjs'

/**
 * Builds `revision` with the npm packages of this checkout. Returns the worktree's folder, and what removes it; ends the process
 * with one line where it cannot.
 */
export function buildRevision(revision) {
  const commit = git(['rev-parse', '--verify', '--quiet', '--end-of-options', `${revision}^{commit}`])
  if (commit.status !== 0) stop(`there is no revision ${revision}`, 2)
  const parent = mkdtempSync(`${realpathSync(tmpdir())}/limpid-revision-`)
  const folder = `${parent}/limpid`
  const remove = () => {
    git(['worktree', 'remove', '--force', folder])
    rmSync(parent, { recursive: true, force: true })
  }
  const fail = (why) => {
    remove()
    stop(why)
  }
  tell(`building ${revision} …`)
  const added = git(['worktree', 'add', '--detach', folder, commit.stdout.trim()])
  if (added.status !== 0) fail(`git worktree add failed: ${added.stderr.trim()}`)
  const locks = git(['diff', '--quiet', commit.stdout.trim(), '--', 'package-lock.json'])
  if (locks.status !== 0) tell(`${revision} has other npm packages; it is measured with those of this checkout`)
  symlinkSync(`${ROOT}/node_modules`, `${folder}/node_modules`)
  const tsc = [`${ROOT}/node_modules/typescript/bin/tsc`, '-p', 'tsconfig.json']
  for (const step of [tsc, ['scripts/bundle.mjs']].filter(([path]) => existsSync(resolve(folder, path)))) {
    const build = spawnSync(process.execPath, step, { cwd: folder, encoding: 'utf8' })
    if (build.status !== 0) fail(`${revision} does not build:\n${build.stdout}${build.stderr}`)
  }
  return { folder, remove }
}

function git(args) {
  return spawnSync('git', ['-C', ROOT, ...args], { encoding: 'utf8' })
}
