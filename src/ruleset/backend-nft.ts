import type { Backend, FoundRules } from './backend.ts'
import { guardTable, ownedText, tableDigest } from './nft.ts'
import {
  countRules,
  deleteTable,
  isGuard,
  isOurs,
  isOwned,
  listOurTables,
  listTable,
  listTables,
  listTableWithCounters,
  loadText,
  nftVersion,
} from './nft-commands.ts'
import { TableOwner } from './owner.ts'
import { probeKernel } from './probe.ts'

/** nftables: the tables of a role, inet and bridge, change in one transaction, and can belong to a process. */
export const nftBackend: Backend = {
  name: 'nft',
  label: (rules, role) => `nft table inet ${role === 'main' ? rules.nftTable : guardTable(rules)}`,
  probe: async (plan) => {
    const { owner } = await probeKernel(plan)
    const notice =
      'this kernel cannot tie an nft table to a process (Linux 5.12 can): after a kill the rules stay until the next start'
    return { canOwn: owner, notices: owner ? [] : [notice] }
  },
  version: nftVersion,
  list: async (rules) => {
    const [main, guard] = await listTables([rules.nftTable, guardTable(rules)])
    return { main, guard }
  },
  listWithCounters: async ({ name }) => (await listTableWithCounters(name)) ?? '',
  listOurs: async () =>
    (await listOurTables()).map(
      ({ name, listing }): FoundRules => ({
        backend: 'nft',
        label: `nft table inet ${name}`,
        name,
        role: isGuard(listing) ? 'guard' : 'main',
        owned: isOwned(listing),
        listing,
        digest: tableDigest(listing),
      }),
    ),
  digest: tableDigest,
  countRules,
  load: async (_rules, _role, scripts) => {
    const removals = scripts.map(({ name }) => `table ${name}\ndelete table ${name}\n`)
    await loadText([...removals, ...scripts.map(({ text }) => text)].join(''))
  },
  remove: deleteTable,
  own: async (plan, onLost) => {
    const text = plan.main.map((script) => ownedText(script.text)).join('')
    const owner = await TableOwner.start(text, plan.rules.nftTable, onLost)
    return { isShared: false, close: () => owner.close(), change: (commands) => owner.change(commands) }
  },
  isForeign: async (rules, role) => {
    const listing = await listTable(role === 'main' ? rules.nftTable : guardTable(rules))
    return listing !== undefined && !isOurs(listing)
  },
}
