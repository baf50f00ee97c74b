# A repository cloned, packed as tightly as git can, moved through its history, and checked.
#! git: apt-get install git
fail() { echo "FAILED $1"; }
git clone -q "file://$REPOSITORY" clone 2> ../git.err || fail clone
cd clone
git gc -q --aggressive --prune=now || fail gc
for commit in $(git log --format=%h -n 40 | awk 'NR % 8 == 1'); do
    git -c advice.detachedHead=false checkout -q "$commit" || fail checkout
done
git -c user.name=soak -c user.email=soak@localhost commit -q --allow-empty -m soak || fail commit
git repack -q -a -d -f --depth=50 --window=50 || fail repack
git fsck --full --strict > ../git-fsck.out 2>&1 || fail fsck
test -z "$(git status --porcelain)" || fail status
git worktree add -q ../worktree HEAD 2>> ../git.err && diff -r --exclude=.git . ../worktree || fail worktree
echo "$(git rev-list --all --objects | wc -l) objects"
