import assert from 'node:assert/strict'
import { test } from 'node:test'
import { encodeBody, encodeByte, encodeText, encodeU32 } from '../sys/netlink-message.ts'
import { suspectOf } from './rule-watch.ts'

const NAMES = { routeTable: 19_536, nftTables: new Set(['limpid', 'limpid-guard']) }
const HEADER = new Uint8Array(12)
const [NEW_LINK, DEL_ROUTE, DEL_RULE, NEW_NEIGHBOUR] = [16, 25, 33, 28]
const NFT = 10 << 8

const suspect = (type: number, body: Uint8Array) => suspectOf({ type, flags: 0, body }, NAMES)
const nft = (type: number, name: string) => suspect(NFT | type, encodeBody(new Uint8Array(4), [encodeText(1, name)]))

test('routes of our route table are suspect, those of others are not', () => {
  assert.equal(suspect(DEL_ROUTE, encodeBody(HEADER, [encodeU32(15, 19_536)])), 'routing')
  assert.equal(suspect(DEL_ROUTE, encodeBody(HEADER, [encodeU32(15, 254)])), undefined)
  assert.equal(suspect(DEL_ROUTE, Uint8Array.of(2, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0)), undefined)
})

test('ip rules with our protocol number are suspect, those of others are not', () => {
  assert.equal(suspect(DEL_RULE, encodeBody(HEADER, [encodeByte(21, 195)])), 'routing')
  assert.equal(suspect(DEL_RULE, encodeBody(HEADER, [encodeByte(21, 3)])), undefined)
  assert.equal(suspect(DEL_RULE, HEADER), undefined)
})

test('whatever happens to interfaces makes routes suspect; neighbours do not', () => {
  assert.equal(suspect(NEW_LINK, HEADER), 'routing')
  assert.equal(suspect(NEW_NEIGHBOUR, HEADER), undefined)
})

test('nft tables of our names are suspect; those of others, and the word that a transaction is done, are not', () => {
  for (const type of [0, 2, 5, 8, 14]) {
    assert.equal(nft(type, 'limpid-guard'), 'tables')
    assert.equal(nft(type, 'limpid-other'), undefined)
  }
  assert.equal(suspect(NFT | 15, encodeBody(new Uint8Array(4), [encodeU32(1, 7)])), undefined)
})

test('a message that is cut short is no harm', () => {
  for (const type of [NEW_LINK, DEL_ROUTE, DEL_RULE, NFT]) {
    for (let length = 0; length < 12; length++) suspect(type, new Uint8Array(length))
  }
})
