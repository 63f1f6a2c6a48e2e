import { z } from 'zod';
import { optionsSchema } from '../options.js';

/** One entry: the name of a factory, and its options. */
const made = z
  .record(z.string(), z.unknown())
  .refine((entry) => Object.keys(entry).length === 1, 'expected one name with its options below it');

/** How the sidecar itself is replaced by a newer one. */
const update = z
  .enum(['restart', 'handover'])
  .describe('restart: a supervisor stops it and starts the new one; handover: the new one takes over its sockets');

export type UpdateProcess = z.output<typeof update>;

/** What stands in `sidecar.yaml`. The parts that are `unknown` are options of factories, which check them themselves. */
export const documentSchema = z.strictObject({
  version: z.literal(1, 'expected 1').describe('Of this format'),
  update: update.optional(),
  pidFile: z.string().min(1).optional().describe('Tells `sallyport sidecar update` which process serves'),
  name: z.unknown().optional(),
  tls: z.unknown().optional(),
  listen: z.unknown().optional(),
  advertise: z.unknown().optional(),
  allowWildcardBind: z.unknown().optional(),
  balancers: z.unknown().optional(),
  inbound: z.unknown().optional(),
  authorize: z.unknown().optional(),
  outbound: z.unknown().optional(),
  upstreams: z.unknown().optional(),
  registry: made.optional().describe('local, consul or etcd, with the options of that registry'),
  identity: z.unknown().optional(),
  limits: z.unknown().optional(),
  admin: z.unknown().optional(),
  drain: z.unknown().optional(),
});

export type SidecarDocument = z.output<typeof documentSchema>;

const file = z.string().min(1).describe('A path; ./ is the folder of this file');
const secret = z
  .string()
  .regex(/^(env|file):/)
  .describe('env:NAME or file:PATH, never the secret itself');
const names = z.union([z.string(), z.array(z.string())]);
const rule = z.strictObject({
  name: z.string().optional(),
  effect: z.enum(['allow', 'deny']),
  from: names.describe('SPIFFE IDs or patterns of such'),
  to: names.describe('What they may do, e.g. sallyport.sidecar.v1.Tunnel/tcp'),
});

/** The same with the parts that the factories check, as far as an editor can help with them. */
const editorSchema = documentSchema.extend({
  update,
  name: z.string().optional().describe('Of the program in the mesh; required with inbound'),
  tls: z
    .union([
      z.looseObject({ cert: file, key: file, ca: file, passphrase: secret.optional() }),
      ...['workloadApi', 'authority', 'vault'].map((name) => z.strictObject({ [name]: z.looseObject({}) })),
    ])
    .describe(
      'Who the program is in the mesh: the options of tls.fromFiles, or the name of another source with its options',
    ),
  listen: z.string().optional().describe('host:port where others reach the program'),
  advertise: z.string().optional().describe('host:port that others dial, where it differs'),
  allowWildcardBind: optionsSchema.shape.allowWildcardBind,
  balancers: optionsSchema.shape.balancers,
  inbound: optionsSchema.shape.inbound,
  authorize: z
    .union([file, z.array(rule)])
    .optional()
    .describe('Rules, or the JSON file that holds them'),
  outbound: optionsSchema.shape.outbound,
  upstreams: optionsSchema.shape.upstreams,
  identity: optionsSchema.shape.identity,
  limits: optionsSchema.shape.limits,
  admin: optionsSchema.shape.admin,
  drain: optionsSchema.shape.drain,
});

/** JSON Schema (2020-12) of `sidecar.yaml`, for editors. */
export function sidecarFileJsonSchema(): object {
  return { title: 'sidecar.yaml', ...z.toJSONSchema(editorSchema, { io: 'input', unrepresentable: 'any' }) };
}
