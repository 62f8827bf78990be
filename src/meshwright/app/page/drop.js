// What people drop or choose: files, folders, whole trees.

const USEFUL = /\.(png|jpe?g|webp|bmp|gif|tiff?|mp4|mov|webm|mkv|avi|m4v|zip|json|npz|pkl|txt|bin|exr|npy|glb|gltf|obj|mtl|ply|stl|xml|csv)$/i;

// Files with their paths, from a drop. Folders are walked.
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  const found = [];
  const walk = async (entry, before) => {
    if (entry instanceof File) { found.push({ file: entry, path: entry.name }); return; }
    if (entry === null) return;
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ file, path: before + file.name });
      return;
    }
    const reader = entry.createReader();
    for (;;) { // a reader gives at most a hundred at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (some.length === 0) break;
      for (const inner of some) await walk(inner, `${before}${entry.name}/`);
    }
  };
  for (const entry of entries) await walk(entry, "");
  return useful(found);
}

export const chosenFiles = (input) => useful([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));

// Without what systems leave in folders. If nothing is left, all is sent, so that the server says what is wrong.
function useful(files) {
  const kept = files.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")) && USEFUL.test(path));
  return kept.length > 0 ? kept : files;
}
