import { processTree, userBytes } from '../lab/process-tree.ts'
import { RESPONSE_BYTES } from './http-responder.ts'
import { IDLE_FLOWS, withIdleFlows } from './idle-flows.ts'
import { HTTP_PORT } from './ports.ts'
import { type Case, costIn } from './suite.ts'
import { runWrk } from './wrk.ts'

/** A proxy that has just started does things for the first time, which is no flow's doing. */
const WARM_UP = { connections: 64, seconds: 1, close: true, responseBytes: RESPONSE_BYTES.close } as const
const SETTLING_MS = 1_500

/** What an idle flow costs in user memory. The kernel's part is the same for all: two sockets. */
export const MEMORY_CASES: readonly Case[] = [
  {
    name: 'idle-memory',
    title: `user memory of ${IDLE_FLOWS.toLocaleString('en-US')} idle flows`,
    figures: [costIn('bytes/flow')],
    needs: 'wrk',
    without: [],
    measure: async (subject) => {
      await runWrk(subject.topology.y, { url: `http://${subject.dialled}:${HTTP_PORT}/`, ...WARM_UP })
      const processes = processTree(subject.pid!)
      const before = userBytes(processes)
      const after = await withIdleFlows(subject, IDLE_FLOWS, async () => {
        await new Promise((resolve) => setTimeout(resolve, SETTLING_MS))
        return userBytes(processes)
      })
      return { rate: IDLE_FLOWS, cost: (after - before) / IDLE_FLOWS, busy: undefined }
    },
  },
]
