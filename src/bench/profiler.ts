// Preloaded into the measured process (node --import): writes a V8 CPU profile at exit. Node 20 does not take --cpu-prof
// from NODE_OPTIONS.
import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'

const SAMPLING_MICROSECONDS = 200

const folder = process.env.LIMPID_BENCH_PROFILE
if (folder !== undefined) {
  const session = new Session()
  session.connect()
  session.post('Profiler.enable')
  session.post('Profiler.setSamplingInterval', { interval: SAMPLING_MICROSECONDS })
  session.post('Profiler.start')
  process.once('exit', () => {
    // within one process the answer comes before post() returns
    session.post('Profiler.stop', (error, answer) => {
      if (error === null) writeFileSync(`${folder}/limpid-${process.pid}.cpuprofile`, JSON.stringify(answer.profile))
    })
  })
}
