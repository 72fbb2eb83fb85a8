// One set-up at a time in a checkout.
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { stop, tell } from './say.mjs'

const PATIENCE_MS = 600_000 // npm ci on a slow line

/** Runs `work` while no other process works on this checkout. */
export function withLock(folder, work) {
  const lock = `${folder}/.limpid/setup.lock`
  const give = Date.now() + PATIENCE_MS
  let told = false
  while (!take(folder, lock)) {
    const owner = ownerOf(lock)
    if (owner === undefined || !isAlive(owner)) {
      rmSync(lock, { force: true })
      continue
    }
    if (!told) tell(`waiting for process ${owner}, which sets up this checkout …`)
    told = true
    if (Date.now() > give) stop(`process ${owner} holds ${lock} for too long; end it and try again`)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  }
  const release = () => rmSync(lock, { force: true })
  process.once('exit', release) // stop() leaves from the middle
  try {
    return work()
  } finally {
    process.off('exit', release)
    release()
  }
}

function take(folder, lock) {
  try {
    mkdirSync(`${folder}/.limpid`, { recursive: true })
    writeFileSync(lock, `${process.pid}`, { flag: 'wx' })
    return true
  } catch (error) {
    if (error.code === 'EEXIST') return false
    return stop(
      `cannot write to ${folder} (${error.code}), and it is not set up; copy it to a folder of your own, or run npm start once as its owner`,
    )
  }
}

function ownerOf(lock) {
  try {
    const pid = Number(readFileSync(lock, 'utf8'))
    return pid > 0 ? pid : undefined
  } catch {
    return undefined // gone again
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}
