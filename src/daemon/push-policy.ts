import { join } from 'node:path'
import type { KV } from '@nats-io/kv'
import { readConfig } from '../config/find.ts'
import type { NatsConfig } from '../config/nats.ts'
import { LISTS_FOLDER, listsIn, POLICY_FILE } from '../config/policy-folder.ts'
import { LimpidError } from '../errors.ts'
import { readListFile } from '../policy/list-file.ts'
import { connectOnce, loadPackage } from './nats-link.ts'

/** What pushPolicy() has changed. */
export interface Pushed {
  readonly put: readonly string[]
  readonly deleted: readonly string[]
  /** Of policy.yaml. */
  readonly revision: number
}

/**
 * Puts the files of a folder that has been checked into a bucket: lists first, since the policy may name them. @throws LimpidError LIMPID_NATS, also
 * when a file is larger than the server takes: then the policy is as it was.
 */
export async function pushPolicy(folder: string, nats: NatsConfig, bucket: string): Promise<Pushed> {
  const { Kvm } = await loadPackage(() => import('@nats-io/kv'))
  const connection = await connectOnce(nats, 'limpid policy push')
  try {
    const kv = await new Kvm(connection).open(bucket)
    const put: string[] = []
    const lists = listsIn(folder).map((name) => `${LISTS_FOLDER}/${name}`)
    for (const key of lists) {
      const { bytes } = await readListFile(join(folder, key))
      if (await putChanged(kv, key, bytes)) put.push(key)
    }
    if (await putChanged(kv, POLICY_FILE, Buffer.from(readConfig(join(folder, POLICY_FILE))))) put.push(POLICY_FILE)
    const deleted: string[] = []
    for await (const key of await kv.keys()) {
      if (key.startsWith(`${LISTS_FOLDER}/`) && !lists.includes(key)) deleted.push(key)
    }
    for (const key of deleted) await kv.delete(key)
    return { put, deleted, revision: (await kv.get(POLICY_FILE))!.revision }
  } catch (cause) {
    throw new LimpidError('LIMPID_NATS', `bucket ${bucket}: ${(cause as Error).message}`, {
      cure: `see that the bucket is there (nats kv add ${bucket}), that we may write it, and that no file is larger than max_payload of the server`,
      cause,
    })
  } finally {
    await connection.close()
  }
}

async function putChanged(kv: KV, key: string, bytes: Uint8Array): Promise<boolean> {
  const there = await kv.get(key)
  if (there?.operation === 'PUT' && Buffer.from(there.value).equals(bytes)) return false
  await kv.put(key, bytes)
  return true
}
