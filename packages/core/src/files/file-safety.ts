import { constants, type Stats } from 'node:fs';
import { lstat, open, readlink } from 'node:fs/promises';
import { isAbsolute, join, sep } from 'node:path';

/** Keys, bundles and revocation lists are far smaller; whatever is larger is something else. */
export const MAX_FILE_BYTES = 4 * 1024 * 1024;
const PERMISSION_DENIED = 'permission denied';
/** As Linux. */
const MAX_LINKS = 40;
/** Windows has neither modes nor owners that Node could see. */
const hasOwners = process.getuid !== undefined;

export type FileDanger =
  /** Missing, not a regular file, too large, or the process may not read it. */
  | 'unreadable'
  /** Others may read it, or it belongs to another user. */
  | 'exposed'
  /** Others may replace it: the file, a folder or a symbolic link on the way to it is theirs or writable by them. */
  | 'replaceable';

export interface FileFinding {
  readonly danger: FileDanger;
  readonly problem: string;
}

export interface FileExpectations {
  /**
   * Keys and secrets: nobody but the owner may read it. Of a file of root, unless root reads it, also one group: it is how root
   * hands a key to a service, and Kubernetes to a pod with fsGroup.
   */
  readonly private: boolean;
}

export interface SafeFile {
  /** Undefined exactly when there are findings. */
  readonly text: string | undefined;
  readonly findings: readonly FileFinding[];
}

export interface SafeBytes {
  /** Undefined exactly when there are findings. */
  readonly bytes: Buffer | undefined;
  readonly findings: readonly FileFinding[];
}

/**
 * Reads a text file of at most 4 MiB that nobody else could have written or, if it is private, read. Never throws.
 *
 * Every symbolic link on the path is followed, and the folder that holds a link is checked like the folder that holds the
 * file: who may replace the link may replace the file.
 */
export async function readSafeFile(path: string, expected: FileExpectations): Promise<SafeFile> {
  const { bytes, findings } = await readSafeBytes(path, expected);
  return { text: bytes?.toString('utf8'), findings };
}

/** As `readSafeFile`, for a file that holds no text. */
export async function readSafeBytes(path: string, expected: FileExpectations): Promise<SafeBytes> {
  const way: Way = { findings: new Map(), kubernetes: false };
  const found = (findings: FileFinding[]): SafeBytes => ({
    bytes: undefined,
    findings: way.kubernetes ? findings.map(withKubernetesRemedy) : findings,
  });
  try {
    await walk(path, way);
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK); // a FIFO must not block
    try {
      // Of the open file, not of the path: what is checked is what is read.
      const stats = await file.stat();
      const findings = [...way.findings.values(), ...fileFindings(path, stats, expected)];
      return findings.length > 0 ? found(findings) : { bytes: await file.readFile(), findings };
    } finally {
      await file.close();
    }
  } catch (error) {
    return found([{ danger: 'unreadable', problem: `${path}: ${reasonOf(error)}` }]);
  }
}

/** What the volume's definition must say, because nobody can chmod what is mounted. */
function withKubernetesRemedy({ danger, problem }: FileFinding): FileFinding {
  if (danger !== 'exposed' && !problem.endsWith(PERMISSION_DENIED)) return { danger, problem };
  const remedy = 'in the volume of the pod set defaultMode: 0400 and, for a user other than root, fsGroup';
  return { danger, problem: `${problem} (${remedy})` };
}

function fileFindings(path: string, file: Stats, expected: FileExpectations): FileFinding[] {
  if (!file.isFile()) return [{ danger: 'unreadable', problem: `${path} is not a regular file` }];
  if (file.size > MAX_FILE_BYTES) {
    return [{ danger: 'unreadable', problem: `${path} is larger than ${MAX_FILE_BYTES} bytes` }];
  }
  if (!hasOwners) return [];
  const findings: FileFinding[] = [];
  if (!isTrusted(file)) {
    findings.push({ danger: expected.private ? 'exposed' : 'replaceable', problem: `${path} belongs to another user` });
  }
  if (expected.private && isExposed(file)) {
    findings.push({ danger: 'exposed', problem: `${path} has mode ${octal(file)}; only its owner may have access` });
  } else if (isWritableByOthers(file)) {
    findings.push({ danger: 'replaceable', problem: `${path} has mode ${octal(file)}; others may write it` });
  }
  return findings;
}

interface Way {
  /** By the place that they are about. */
  readonly findings: Map<string, FileFinding>;
  /** It leads through `..data`, the link by which Kubernetes swaps the files of a mounted secret. */
  kubernetes: boolean;
}

/** Looks at every folder and every symbolic link that the path leads through, as the kernel walks it. */
async function walk(path: string, way: Way): Promise<void> {
  if (!hasOwners) return;
  const found = (at: string, problem: string) => way.findings.set(at, { danger: 'replaceable', problem });
  let steps = (isAbsolute(path) ? path : `${process.cwd()}${sep}${path}`).split(sep);
  let links = 0;
  let folder: string = sep;
  while (steps.length > 0) {
    const [step = '', ...rest] = steps;
    const at = join(folder, step); // also for "", "." and ".."
    const entry = await lstat(at);
    if (entry.isSymbolicLink()) {
      if (++links > MAX_LINKS) throw Object.assign(new Error('too many symbolic links'), { code: 'ELOOP' });
      if (step === '..data') way.kubernetes = true;
      if (!isTrusted(entry)) found(at, `the symbolic link ${at} belongs to another user`);
      const target = await readlink(at);
      if (isAbsolute(target)) folder = sep;
      steps = [...target.split(sep), ...rest];
      continue;
    }
    if (entry.isDirectory()) {
      if (!isTrusted(entry)) found(at, `the folder ${at} belongs to another user`);
      else if (isReplaceableIn(entry)) found(at, `the folder ${at} has mode ${octal(entry)}; others may write it`);
      folder = at;
    }
    steps = rest;
  }
}

/** Says what went wrong, without the system call and the second mention of the path that Node puts into its message. */
function reasonOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'there is no such file';
  if (code === 'EACCES' || code === 'EPERM') return PERMISSION_DENIED;
  return code === '' ? 'it cannot be read' : `it cannot be read (${code})`;
}

function isExposed({ uid, mode }: Stats): boolean {
  const handedOver = uid === 0 && process.getuid?.() !== 0;
  return (mode & (handedOver ? 0o037 : 0o077)) !== 0;
}

/** In a sticky folder, such as /tmp, only the owner of an entry may replace it. */
function isReplaceableIn(folder: Stats): boolean {
  return isWritableByOthers(folder) && (folder.mode & 0o1000) === 0;
}

function isWritableByOthers({ mode }: Stats): boolean {
  return (mode & 0o022) !== 0;
}

/** The user of the process, and root, who owns it anyway. */
function isTrusted({ uid }: Stats): boolean {
  return uid === 0 || uid === process.getuid?.();
}

function octal({ mode }: Stats): string {
  return (mode & 0o7777).toString(8).padStart(4, '0');
}
