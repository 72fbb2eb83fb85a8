import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { LimpidError } from '../errors.ts'
import { parsePolicyApart } from './apart.ts'
import { readConfig } from './find.ts'
import { NAME } from './name.ts'
import { type Gateway, parsePolicy } from './policy-file.ts'
import type { PolicyConfig } from './policy-types.ts'

/** Of a folder with a policy: what the key `policy` of limpid.yaml holds. */
export const POLICY_FILE = 'policy.yaml'
/** Below it: each file is the list of its name. */
export const LISTS_FOLDER = 'lists'

/** The policy of a folder, for `gateway`. @throws LimpidError LIMPID_CONFIG when it cannot be read, is wrong, or others can write it. */
export function readPolicyFolder(folder: string, gateway: Gateway): PolicyConfig {
  return parsePolicy(...openFolder(folder, gateway))
}

/** The same, parsed in a thread, until `signal` says that nobody wants it any more. @throws LimpidError LIMPID_CONFIG */
export async function readPolicyFolderApart(
  folder: string,
  gateway: Gateway,
  signal?: AbortSignal,
): Promise<PolicyConfig> {
  return await parsePolicyApart(...openFolder(folder, gateway), signal)
}

function openFolder(folder: string, gateway: Gateway): Parameters<typeof parsePolicy> {
  const file = join(folder, POLICY_FILE)
  const text = readConfig(file, { decides: true })
  const lists = Object.fromEntries(listsIn(folder).map((name) => [name, join(folder, LISTS_FOLDER, name)]))
  return [text, file, { gateway, lists }]
}

/** The names of the lists that lie in the folder; what is no name of a list is left out. */
export function listsIn(folder: string): string[] {
  try {
    return readdirSync(join(folder, LISTS_FOLDER)).filter((name) => NAME.safeParse(name).success)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ENOENT') return []
    throw new LimpidError('LIMPID_CONFIG', `cannot read ${join(folder, LISTS_FOLDER)}: ${code}`, { cause })
  }
}
